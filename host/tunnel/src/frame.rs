//! The frames of a tunnel, and the commands of llama.cpp's RPC (`ggml-rpc.cpp`) in them.
//!
//! A frame consists of its kind (one byte), the length of its body (8 bytes, little endian) and its body. The commands
//! of llama.cpp have the same form.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes before a body: kind and length.
pub(crate) const HEADER_BYTES: usize = 9;
/// The maximum length of a body. No tensor is larger.
const MAX_BODY_BYTES: u64 = 64 << 30;

/// The kind of a frame. The discriminant is the byte on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Shows that the sender is alive.
    Heartbeat,
    /// A command for the RPC server.
    Command,
    /// A tensor that the worker has cached: the header of `SET_TENSOR` and the SHA-256 of the data.
    TensorRef,
    /// The body of `SET_TENSOR`, whose data the worker caches.
    Tensor,
    /// The body of `GRAPH_COMPUTE`, encoded by [`super::graph`].
    Graph,
    /// A reply of the RPC server.
    Reply,
    /// The SHA-256 of each tensor that the worker has cached.
    Cached,
    /// The reason why the worker ends the tunnel.
    Error,
}

impl FrameKind {
    const ALL: [Self; 8] = [
        Self::Heartbeat,
        Self::Command,
        Self::TensorRef,
        Self::Tensor,
        Self::Graph,
        Self::Reply,
        Self::Cached,
        Self::Error,
    ];
}

/// The numbers of the RPC commands that a tunnel treats specially.
pub(crate) mod command {
    pub(crate) const ALLOC_BUFFER: u8 = 0;
    pub(crate) const FREE_BUFFER: u8 = 4;
    pub(crate) const SET_TENSOR: u8 = 6;
    pub(crate) const SET_TENSOR_HASH: u8 = 7;
    pub(crate) const GRAPH_COMPUTE: u8 = 10;
    pub(crate) const GET_ALLOC_SIZE: u8 = 13;
    pub(crate) const GRAPH_RECOMPUTE: u8 = 16;
}

/// Bytes of `SET_TENSOR` before the data: the tensor, the cache flag, the offset.
pub(crate) const TENSOR_HEADER_BYTES: usize = 296 + 1 + 8;
/// The offset of the cache flag.
pub(crate) const CACHE_FLAG_OFFSET: usize = 296;

/// A kind and a body: a frame, or a command of llama.cpp.
#[derive(Debug)]
pub(crate) struct Message {
    pub kind: u8,
    pub body: Vec<u8>,
}

impl Message {
    /// Reads the next message; `None` at the end of the stream.
    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let kind = match from.read_u8().await {
            Ok(kind) => kind,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = from.read_u64_le().await?;
        if length > MAX_BODY_BYTES {
            return Err(io::Error::other(format!("a message of {length} bytes exceeds the limit of 64 GiB")));
        }
        // The buffer grows with the received bytes. The announced length may be wrong.
        let mut body = Vec::new();
        let read = from.take(length).read_to_end(&mut body).await?;
        if (read as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(Self { kind, body }))
    }

    /// The bytes of this message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self.kind, &[&self.body])
    }

    /// The number of bytes on the wire.
    pub(crate) fn wire_bytes(&self) -> u64 {
        (HEADER_BYTES + self.body.len()) as u64
    }

    /// The kind of this frame; `None` for unknown numbers.
    pub(crate) fn frame_kind(&self) -> Option<FrameKind> {
        FrameKind::ALL.get(usize::from(self.kind)).copied()
    }
}

fn encode(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + length);
    bytes.push(kind);
    bytes.extend((length as u64).to_le_bytes());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Writes a frame whose body is the concatenation of `parts`. Returns the number of written bytes.
pub(crate) async fn write_frame(
    to: &mut (impl AsyncWrite + Unpin),
    kind: FrameKind,
    parts: &[&[u8]],
) -> io::Result<usize> {
    // One write makes one packet. Two writes would make two.
    let bytes = encode(kind as u8, parts);
    to.write_all(&bytes).await?;
    to.flush().await?;
    Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_as_they_were_written() {
        let mut wire = Vec::new();
        write_frame(&mut wire, FrameKind::TensorRef, &[b"header", b"digest"]).await.unwrap();
        write_frame(&mut wire, FrameKind::Heartbeat, &[]).await.unwrap();
        let mut wire = wire.as_slice();
        let first = Message::read(&mut wire).await.unwrap().unwrap();
        assert_eq!(
            (first.frame_kind(), first.body.as_slice()),
            (Some(FrameKind::TensorRef), b"headerdigest".as_slice())
        );
        let second = Message::read(&mut wire).await.unwrap().unwrap();
        assert_eq!((second.frame_kind(), second.body.len()), (Some(FrameKind::Heartbeat), 0));
        assert!(Message::read(&mut wire).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn truncated_and_oversized_messages_are_errors() {
        let mut truncated: &[u8] = &[1, 5, 0, 0, 0, 0, 0, 0, 0, b'a'];
        assert!(Message::read(&mut truncated).await.is_err());
        let mut oversized: &[u8] = &[1, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(Message::read(&mut oversized).await.is_err());
        assert_eq!(Message { kind: 77, body: Vec::new() }.frame_kind(), None);
    }
}
