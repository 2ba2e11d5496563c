//! The worker's relay of the host's commands to the RPC server.
//!
//! Invariant: the RPC server receives complete commands of the known kinds, and no allocation that exceeds the lent
//! memory. Tensors travel in parts: neither the worker nor the RPC server holds a complete tensor outside its buffer.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::cache::{Listing, TensorCache, TensorDigest, TensorWriter};
use crate::frame::FrameKind;
use crate::graph::{GraphCodec, MAX_GRAPH_FRAME_BYTES};
use crate::protocol::MAX_PART_BYTES;
use crate::quota::Reservations;
use crate::reply_relay::ExpectedReply;
use crate::rpc::{
    self, CACHE_FLAG_OFFSET, GET_LENGTH, GET_OFFSET, HEADER_BYTES, Header, RpcCommand, SET_OFFSET,
    TENSOR_HEADER_BYTES, number_at, read_body,
};

/// The maximum number of parts of a tensor between the network and the disk.
const MAX_QUEUED_PARTS: usize = 4;
const TENSOR_REF_BYTES: u64 = TENSOR_HEADER_BYTES as u64 + 32;

/// The body of `SET_TENSOR` before the data.
type TensorHeader = [u8; TENSOR_HEADER_BYTES];

/// Relays the commands of a host to the RPC server.
pub(crate) struct CommandRelay<'a, W> {
    to_server: W,
    expected: mpsc::Sender<ExpectedReply>,
    reservations: &'a Reservations,
    cache: Option<Arc<TensorCache>>,
    /// The tensors that the host may refer to. `None` after the first graph, when the model is loaded.
    listing: Option<Listing>,
    graphs: GraphCodec,
}

impl<'a, W: AsyncWrite + Unpin> CommandRelay<'a, W> {
    pub(crate) fn new(
        to_server: W,
        expected: mpsc::Sender<ExpectedReply>,
        reservations: &'a Reservations,
        cache: Option<Arc<TensorCache>>,
        listing: Option<Listing>,
    ) -> Self {
        Self { to_server, expected, reservations, cache, listing, graphs: GraphCodec::default() }
    }

    /// Relays commands until the host closes the connection.
    pub(crate) async fn run(&mut self, mut from_host: impl AsyncRead + Unpin) -> io::Result<()> {
        while let Some(header) = Header::read(&mut from_host).await? {
            let bytes = header.body_bytes;
            match FrameKind::of(header) {
                Some(FrameKind::Heartbeat) => FrameKind::Heartbeat.check_bytes(bytes, 0..=0)?,
                Some(FrameKind::Command) => self.command(&mut from_host, bytes).await?,
                Some(FrameKind::TensorRef) => {
                    FrameKind::TensorRef.check_bytes(bytes, TENSOR_REF_BYTES..=TENSOR_REF_BYTES)?;
                    self.cached_tensor(&mut from_host).await?;
                }
                Some(FrameKind::Tensor) => self.new_tensor(&mut from_host, bytes).await?,
                Some(FrameKind::Graph) => {
                    FrameKind::Graph.check_bytes(bytes, 8..=MAX_GRAPH_FRAME_BYTES)?;
                    self.listing = None;
                    let graph = self.graphs.decode(&read_body(&mut from_host, bytes).await?)?;
                    let header =
                        Header { number: RpcCommand::GraphCompute as u8, body_bytes: graph.len() as u64 };
                    self.to_server.write_all(&header.encode()).await?;
                    self.to_server.write_all(&graph).await?;
                }
                Some(kind) => {
                    return Err(io::Error::other(format!(
                        "the host sends a frame {kind:?}, which only workers send"
                    )));
                }
                None => {
                    return Err(io::Error::other(format!("a frame has the unknown kind {}", header.number)));
                }
            }
        }
        Ok(())
    }

    /// Relays the command in a frame of `frame_bytes`.
    async fn command(
        &mut self,
        from_host: &mut (impl AsyncRead + Unpin),
        frame_bytes: u64,
    ) -> io::Result<()> {
        let incomplete =
            || io::Error::other(format!("a frame of {frame_bytes} bytes has no complete command"));
        let body_bytes = frame_bytes.checked_sub(HEADER_BYTES as u64).ok_or_else(incomplete)?;
        let header = Header::read(from_host).await?.ok_or_else(incomplete)?;
        let command = RpcCommand::from_number(header.number)?;
        if header.body_bytes != body_bytes {
            return Err(io::Error::other(format!(
                "a frame with {body_bytes} bytes for {command:?} announces {}: a frame has exactly one command",
                header.body_bytes
            )));
        }
        command.check_body(body_bytes, self.max_tensor_body_bytes())?;
        match command {
            RpcCommand::SetTensor => {
                let header = tensor_header(from_host, body_bytes).await?;
                self.stream_tensor(header, from_host, body_bytes - TENSOR_HEADER_BYTES as u64, None).await
            }
            RpcCommand::GraphCompute | RpcCommand::SetTensorHash => {
                Err(io::Error::other(format!("hosts do not send {command:?} as a command")))
            }
            _ => self.short_command(command, read_body(from_host, body_bytes).await?).await,
        }
    }

    /// Relays a command whose body has a fixed length.
    async fn short_command(&mut self, command: RpcCommand, body: Vec<u8>) -> io::Result<()> {
        match command {
            RpcCommand::GetTensor => return self.get_tensor(body).await,
            RpcCommand::AllocBuffer => {
                // The device has 4 bytes. The size follows.
                let bytes = number_at(&body, 4).unwrap_or(u64::MAX);
                if !self.reservations.begin(bytes) {
                    return self.expect(ExpectedReply::Refusal).await;
                }
                self.expect(ExpectedReply::Buffer(bytes)).await?;
            }
            RpcCommand::FreeBuffer => self.reservations.free(number_at(&body, 0).unwrap_or_default())?,
            _ => {
                if let Some(bytes) = command.reply_bytes() {
                    self.expect(ExpectedReply::Body(bytes)).await?;
                }
            }
        }
        self.to_server.write_all(&rpc::encode(command, &body)).await
    }

    /// Requests a tensor in parts. The replies together are the reply to the host's command.
    async fn get_tensor(&mut self, mut body: Vec<u8>) -> io::Result<()> {
        let (mut offset, bytes) = (number_at(&body, GET_OFFSET), number_at(&body, GET_LENGTH));
        let total = bytes.unwrap_or(u64::MAX);
        self.check_tensor(total)?;
        let mut left = total;
        loop {
            let part = left.min(MAX_PART_BYTES);
            let position = offset.ok_or_else(invalid_offset)?;
            body[GET_OFFSET..GET_LENGTH].copy_from_slice(&position.to_le_bytes());
            body[GET_LENGTH..].copy_from_slice(&part.to_le_bytes());
            let is_first = left == total;
            self.expect(ExpectedReply::TensorPart { bytes: part, total: is_first.then_some(total) }).await?;
            self.to_server.write_all(&rpc::encode(RpcCommand::GetTensor, &body)).await?;
            left -= part;
            offset = position.checked_add(part);
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// Relays a tensor and caches its data.
    async fn new_tensor(&mut self, from_host: &mut (impl AsyncRead + Unpin), bytes: u64) -> io::Result<()> {
        RpcCommand::SetTensor.check_body(bytes, self.max_tensor_body_bytes())?;
        let header = tensor_header(from_host, bytes).await?;
        let data_bytes = bytes - TENSOR_HEADER_BYTES as u64;
        let writer = match self.cache.clone() {
            Some(cache) => spawn_blocking(move || cache.begin(data_bytes)).await.map_err(io::Error::other)?,
            None => None,
        };
        self.stream_tensor(header, from_host, data_bytes, writer).await
    }

    /// Relays data of `bytes` bytes in parts, and passes them to `writer`.
    async fn stream_tensor(
        &mut self,
        header: TensorHeader,
        from_host: &mut (impl AsyncRead + Unpin),
        bytes: u64,
        writer: Option<TensorWriter>,
    ) -> io::Result<()> {
        let mut store = writer.map(PartStore::start);
        let mut sent = 0;
        loop {
            let part = Arc::new(read_body(from_host, (bytes - sent).min(MAX_PART_BYTES)).await?);
            self.set_tensor(&header, sent, &part).await?;
            sent += part.len() as u64;
            if let Some(store) = &mut store {
                store.push(part).await;
            }
            if sent == bytes {
                break;
            }
        }
        match store {
            Some(store) => store.finish().await,
            None => Ok(()),
        }
    }

    /// Relays a tensor from the cache. Its data is compared with its SHA-256 before the next command.
    async fn cached_tensor(&mut self, from_host: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let header = tensor_header(from_host, TENSOR_REF_BYTES).await?;
        let mut digest: TensorDigest = [0; 32];
        from_host.read_exact(&mut digest).await?;
        let missing = || io::Error::other("a tensor is no longer in the cache; the next load sends it again");
        let cache = self.cache.clone().ok_or_else(missing)?;
        let opened = {
            let cache = cache.clone();
            spawn_blocking(move || cache.open(&digest)).await.map_err(io::Error::other)?
        };
        let tensor = opened.ok_or_else(missing)?;
        self.check_tensor(tensor.bytes)?;
        let (sender, mut parts) = mpsc::channel(MAX_QUEUED_PARTS);
        let reading = spawn_blocking(move || cache.read(tensor, |part| sender.blocking_send(part).is_ok()));
        let mut sent = 0;
        while let Some(part) = parts.recv().await {
            self.set_tensor(&header, sent, &part).await?;
            sent += part.len() as u64;
        }
        let is_valid = reading.await.map_err(io::Error::other)?;
        if is_valid { Ok(()) } else { Err(missing()) }
    }

    /// Sends `SET_TENSOR` with `part`, which lies `start` bytes after the start of the host's data.
    async fn set_tensor(&mut self, header: &TensorHeader, start: u64, part: &[u8]) -> io::Result<()> {
        let offset = number_at(header, SET_OFFSET).and_then(|offset| offset.checked_add(start));
        let mut header = *header;
        header[SET_OFFSET..].copy_from_slice(&offset.ok_or_else(invalid_offset)?.to_le_bytes());
        // The RPC server must not cache tensors itself.
        header[CACHE_FLAG_OFFSET] = 0;
        let body_bytes = (header.len() + part.len()) as u64;
        let start = Header { number: RpcCommand::SetTensor as u8, body_bytes }.encode();
        self.to_server.write_all(&[&start[..], &header, part].concat()).await
    }

    async fn expect(&self, reply: ExpectedReply) -> io::Result<()> {
        self.expected.send(reply).await.map_err(|_| io::Error::other("the relay of replies has ended"))
    }

    /// Checks that the tunnel has a buffer that can hold a tensor of `bytes`.
    fn check_tensor(&self, bytes: u64) -> io::Result<()> {
        let reserved = self.reservations.total_bytes();
        if bytes <= reserved {
            return Ok(());
        }
        Err(io::Error::other(format!("a tensor of {bytes} bytes exceeds the buffers of {reserved} bytes")))
    }

    /// The maximum length of the body of `SET_TENSOR`: no tensor exceeds the buffers of the tunnel.
    fn max_tensor_body_bytes(&self) -> u64 {
        self.reservations.total_bytes().saturating_add(TENSOR_HEADER_BYTES as u64)
    }
}

/// Passes the parts of a tensor to a thread that writes them to the disk.
struct PartStore {
    parts: mpsc::Sender<Arc<Vec<u8>>>,
    writing: tokio::task::JoinHandle<TensorWriter>,
}

impl PartStore {
    fn start(mut writer: TensorWriter) -> Self {
        let (parts, mut received) = mpsc::channel::<Arc<Vec<u8>>>(MAX_QUEUED_PARTS);
        let writing = spawn_blocking(move || {
            while let Some(part) = received.blocking_recv() {
                writer.write(&part);
            }
            writer
        });
        Self { parts, writing }
    }

    async fn push(&self, part: Arc<Vec<u8>>) {
        // The thread ends early only by a panic, which `finish` reports.
        let _ = self.parts.send(part).await;
    }

    async fn finish(self) -> io::Result<()> {
        drop(self.parts);
        let writer = self.writing.await.map_err(io::Error::other)?;
        spawn_blocking(move || writer.finish()).await.map_err(io::Error::other)
    }
}

/// Reads the start of the body of `SET_TENSOR`, which has `body_bytes` bytes.
async fn tensor_header(from: &mut (impl AsyncRead + Unpin), body_bytes: u64) -> io::Result<TensorHeader> {
    if body_bytes < TENSOR_HEADER_BYTES as u64 {
        return Err(io::Error::other(format!("a tensor has {body_bytes} bytes, fewer than its header")));
    }
    let mut header = [0; TENSOR_HEADER_BYTES];
    from.read_exact(&mut header).await?;
    Ok(header)
}

fn invalid_offset() -> io::Error {
    io::Error::other("a command has an invalid offset")
}
