//! A fake of llama.cpp's RPC server, and a fake of a worker's HTTP port.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::frame::{Message, TENSOR_HEAD, command};
use crate::protocol::UPGRADE;

/// A command whose answer is its own body here.
pub(crate) const GET_TENSOR: u8 = 8;
/// A size that the fake server has no memory for.
pub(crate) const NO_MEMORY: u64 = 13;

/// The commands that an RPC server received; the server ends when this is dropped.
pub(crate) struct RpcServer {
    pub(crate) commands: UnboundedReceiver<Message>,
    _serving: JoinSet<()>,
}

/// A connection to a fake RPC server.
pub(crate) async fn rpc_server() -> (TcpStream, RpcServer) {
    let (client, server) = connected().await;
    let (sender, commands) = unbounded_channel();
    let mut serving = JoinSet::new();
    serving.spawn(async move { drop(serve(server, sender).await) });
    (client, RpcServer { commands, _serving: serving })
}

/// Both ends of a TCP connection on loopback.
pub(crate) async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn serve(mut host: TcpStream, commands: UnboundedSender<Message>) -> io::Result<()> {
    let mut buffers = 0_u64;
    while let Some(message) = Message::read(&mut host).await? {
        let answer = match message.kind {
            command::ALLOC_BUFFER => {
                let size = u64::from_le_bytes(message.body[8..].try_into().unwrap());
                buffers += 1;
                let buffer = if size == NO_MEMORY { 0 } else { buffers };
                Some([buffer, size].map(u64::to_le_bytes).concat())
            }
            command::FREE_BUFFER => Some(Vec::new()),
            GET_TENSOR => Some(message.body.clone()),
            _ => None,
        };
        let _ = commands.send(message);
        if let Some(answer) = answer {
            let length = answer.len() as u64;
            host.write_all(&[&length.to_le_bytes()[..], &answer].concat()).await?;
        }
    }
    Ok(())
}

/// A worker's port: each connection that asks for a tunnel becomes one, and goes to `tunnel`.
pub(crate) struct WorkerPort {
    pub(crate) address: SocketAddr,
    _serving: JoinSet<()>,
}

/// Opens a worker's port.
pub(crate) async fn worker_port<T, F>(tunnel: T) -> WorkerPort
where
    T: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut host, _) = listener.accept().await.unwrap();
            let head = request_head(&mut host).await;
            assert!(head.starts_with("GET /v1/worker/rpc "), "{head}");
            assert!(head.to_lowercase().contains(&format!("upgrade: {UPGRADE}\r\n")), "{head}");
            connections.spawn(tunnel(host));
        }
    });
    WorkerPort { address, _serving: serving }
}

async fn request_head(host: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(host.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Agrees to become a tunnel.
pub(crate) async fn switch_protocols(host: &mut TcpStream) {
    let head =
        format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {UPGRADE}\r\n\r\n");
    host.write_all(head.as_bytes()).await.unwrap();
}

/// The command that allocates `size` bytes.
pub(crate) fn allocation(size: u64) -> Vec<u8> {
    command(command::ALLOC_BUFFER, &[0, size].map(u64::to_le_bytes).concat())
}

/// The bytes of a command.
pub(crate) fn command(kind: u8, body: &[u8]) -> Vec<u8> {
    Message { kind, body: body.to_vec() }.bytes()
}

/// The body of `SET_TENSOR` with `data`.
pub(crate) fn tensor(data: &[u8]) -> Vec<u8> {
    let head: Vec<u8> = (0..TENSOR_HEAD).map(|at| at as u8).collect();
    [head.as_slice(), data].concat()
}

/// Bytes that do not compress and differ by `seed`.
pub(crate) fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}
