//! A fake of llama.cpp's RPC server, and a fake of a worker's HTTP port.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::protocol::UPGRADE_PROTOCOL;
use crate::rpc::{
    self, GET_LENGTH, GET_OFFSET, Header, RpcCommand, SET_OFFSET, TENSOR_HEADER_BYTES, number_at, read_body,
};

/// A command that a fake server received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) command: RpcCommand,
    pub(crate) body: Vec<u8>,
}

/// A buffer size that the fake server refuses to allocate.
pub(crate) const REFUSED_BYTES: u64 = 13;

/// A fake RPC server and the commands that it received. Dropping it ends the server.
pub(crate) struct RpcServer {
    pub(crate) commands: UnboundedReceiver<Received>,
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

/// Replies as llama.cpp's server does: some commands have no reply.
async fn serve(mut host: TcpStream, commands: UnboundedSender<Received>) -> io::Result<()> {
    let mut buffers = 0_u64;
    while let Some(header) = Header::read(&mut host).await? {
        let command = RpcCommand::from_number(header.number)?;
        let body = read_body(&mut host, header.body_bytes).await?;
        let reply = match command {
            RpcCommand::AllocBuffer => {
                let size = number_at(&body, 4).unwrap();
                buffers += 1;
                let buffer = if size == REFUSED_BYTES { 0 } else { buffers };
                Some([buffer, size].map(u64::to_le_bytes).concat())
            }
            RpcCommand::GetTensor => {
                let [offset, length] = [GET_OFFSET, GET_LENGTH].map(|at| number_at(&body, at).unwrap());
                Some(stored_data(offset, length))
            }
            _ => command.reply_bytes().map(|bytes| vec![7; usize::try_from(bytes).unwrap()]),
        };
        let _ = commands.send(Received { command, body });
        if let Some(reply) = reply {
            let length = reply.len() as u64;
            host.write_all(&[&length.to_le_bytes()[..], &reply].concat()).await?;
        }
    }
    Ok(())
}

/// The data of the fake server's tensors.
pub(crate) fn stored_data(offset: u64, length: u64) -> Vec<u8> {
    (offset..offset + length).map(|position| (position % 251) as u8).collect()
}

impl RpcServer {
    /// Receives a tensor of `bytes` bytes in its parts. Returns the header of the first part, the data, and the number
    /// of parts.
    pub(crate) async fn tensor(&mut self, bytes: usize) -> (Vec<u8>, Vec<u8>, usize) {
        let (mut header, mut data, mut parts) = (Vec::new(), Vec::new(), 0);
        while data.len() < bytes {
            let Received { command, body } = self.commands.recv().await.unwrap();
            assert_eq!(command, RpcCommand::SetTensor);
            if parts == 0 {
                header = body[..TENSOR_HEADER_BYTES].to_vec();
            }
            let offset = number_at(&body, SET_OFFSET).unwrap() - number_at(&header, SET_OFFSET).unwrap();
            assert_eq!(offset, data.len() as u64, "part {parts}");
            data.extend_from_slice(&body[TENSOR_HEADER_BYTES..]);
            parts += 1;
        }
        (header, data, parts)
    }
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
    rpc::encode(RpcCommand::AllocBuffer, &[&[0; 4][..], &size.to_le_bytes()].concat())
}

/// The body of `GET_TENSOR` for `length` bytes at `offset`.
pub(crate) fn get_tensor(offset: u64, length: u64) -> Vec<u8> {
    [vec![0; GET_OFFSET], [offset, length].map(u64::to_le_bytes).concat()].concat()
}

/// The body of `GRAPH_COMPUTE` with these numbers of nodes and tensors. `seed` changes the last bytes.
pub(crate) fn graph(nodes: u32, tensors: u32, seed: u32) -> Vec<u8> {
    let data = noise(9, 8 * nodes as usize + 296 * tensors as usize);
    let (node_data, tensor_data) = data.split_at(8 * nodes as usize);
    let counts = [nodes, tensors].map(u32::to_le_bytes);
    let mut graph = [&[0; 4], &counts[0][..], node_data, &counts[1][..], tensor_data].concat();
    let end = graph.len() - 4;
    graph[end..].copy_from_slice(&seed.to_le_bytes());
    graph
}

/// The body of `SET_TENSOR` with `data`.
pub(crate) fn tensor(data: &[u8]) -> Vec<u8> {
    let mut header: Vec<u8> = (0..TENSOR_HEADER_BYTES).map(|index| index as u8).collect();
    header[SET_OFFSET..].copy_from_slice(&64_u64.to_le_bytes());
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
