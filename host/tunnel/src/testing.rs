//! A fake of llama.cpp's RPC server, and a fake of a worker's HTTP port.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::frame::{Message, TENSOR_HEADER_BYTES, command};
use crate::protocol::UPGRADE_PROTOCOL;

/// A command that the fake server answers with the command's body.
pub(crate) const GET_TENSOR: u8 = 8;
/// A buffer size that the fake server refuses to allocate.
pub(crate) const REFUSED_BYTES: u64 = 13;

/// A fake RPC server and the commands that it received. Dropping it ends the server.
pub(crate) struct RpcServer {
    pub(crate) commands: UnboundedReceiver<Message>,
    _serving: JoinSet<()>,
}

/// Returns a connection to a fake RPC server, and the server.
pub(crate) async fn rpc_server() -> (TcpStream, RpcServer) {
    let (client, server) = tcp_pair().await;
    let (sender, commands) = unbounded_channel();
    let mut serving = JoinSet::new();
    serving.spawn(async move { drop(serve(server, sender).await) });
    (client, RpcServer { commands, _serving: serving })
}

/// Returns both ends of a TCP connection on loopback.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn serve(mut host: TcpStream, commands: UnboundedSender<Message>) -> io::Result<()> {
    let mut buffers = 0_u64;
    while let Some(message) = Message::read(&mut host).await? {
        let reply = match message.kind {
            command::ALLOC_BUFFER => {
                let size = u64::from_le_bytes(message.body[8..].try_into().unwrap());
                buffers += 1;
                let buffer = if size == REFUSED_BYTES { 0 } else { buffers };
                Some([buffer, size].map(u64::to_le_bytes).concat())
            }
            command::FREE_BUFFER => Some(Vec::new()),
            GET_TENSOR => Some(message.body.clone()),
            _ => None,
        };
        let _ = commands.send(message);
        if let Some(reply) = reply {
            let length = reply.len() as u64;
            host.write_all(&[&length.to_le_bytes()[..], &reply].concat()).await?;
        }
    }
    Ok(())
}

/// The open HTTP port of a fake worker. Dropping the value closes the port.
pub(crate) struct WorkerPort {
    pub(crate) address: SocketAddr,
    _serving: JoinSet<()>,
}

/// Opens the port of a fake worker, which calls `tunnel` with each connection that requests a tunnel.
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
            let header = request_header(&mut host).await;
            assert!(header.starts_with("GET /v1/worker/rpc "), "{header}");
            assert!(header.to_lowercase().contains(&format!("upgrade: {UPGRADE_PROTOCOL}\r\n")), "{header}");
            connections.spawn(tunnel(host));
        }
    });
    WorkerPort { address, _serving: serving }
}

async fn request_header(host: &mut TcpStream) -> String {
    let mut header = Vec::new();
    while !header.ends_with(b"\r\n\r\n") {
        header.push(host.read_u8().await.unwrap());
    }
    String::from_utf8(header).unwrap()
}

/// Accepts a request for a tunnel.
pub(crate) async fn switch_protocols(host: &mut TcpStream) {
    let header = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {UPGRADE_PROTOCOL}\r\n\r\n"
    );
    host.write_all(header.as_bytes()).await.unwrap();
}

/// The command that allocates `size` bytes.
pub(crate) fn alloc_command(size: u64) -> Vec<u8> {
    command(command::ALLOC_BUFFER, &[0, size].map(u64::to_le_bytes).concat())
}

/// The bytes of a command.
pub(crate) fn command(kind: u8, body: &[u8]) -> Vec<u8> {
    Message { kind, body: body.to_vec() }.encode()
}

/// The body of `SET_TENSOR` with `data`.
pub(crate) fn tensor(data: &[u8]) -> Vec<u8> {
    let header: Vec<u8> = (0..TENSOR_HEADER_BYTES).map(|index| index as u8).collect();
    [header.as_slice(), data].concat()
}

/// Incompressible bytes that depend on `seed`.
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
