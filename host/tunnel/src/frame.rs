//! The frames of a tunnel.
//!
//! A frame consists of its kind (one byte), the length of its body (8 bytes, little endian) and its body. The commands
//! of llama.cpp have the same form.

use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::rpc::{HEADER_BYTES, Header};

/// The maximum size of a frame that is copied into one write.
const MAX_COPIED_BYTES: usize = 64 << 10;

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
    /// A reply of the RPC server, or the next part of a reply.
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

    /// The kind of the frame with this header; `None` for unknown numbers.
    pub(crate) fn of(header: Header) -> Option<Self> {
        Self::ALL.get(usize::from(header.number)).copied()
    }

    /// Checks the announced length of a frame's body.
    pub(crate) fn check_bytes(self, bytes: u64, allowed: std::ops::RangeInclusive<u64>) -> io::Result<()> {
        if allowed.contains(&bytes) {
            return Ok(());
        }
        let (min, max) = allowed.into_inner();
        Err(io::Error::other(format!("a frame {self:?} of {bytes} bytes must have {min} to {max} bytes")))
    }
}

/// Writes frames.
///
/// Invariant: after a write that was cancelled or failed, the writer writes nothing more. The other end would take the
/// next frame for the rest of the incomplete one.
pub(crate) struct FrameWriter<W> {
    to: W,
    incomplete: bool,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, incomplete: false }
    }

    /// Writes a frame whose body is the concatenation of `parts`. Returns the number of written bytes.
    pub(crate) async fn write(&mut self, kind: FrameKind, parts: &[&[u8]]) -> io::Result<u64> {
        if self.incomplete {
            return Err(io::Error::other("the last frame is incomplete"));
        }
        let body_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let header = Header { number: kind as u8, body_bytes: body_bytes as u64 }.encode();
        self.incomplete = true;
        if body_bytes <= MAX_COPIED_BYTES {
            // One write makes one packet.
            let frame = [&[&header[..]], parts].concat().concat();
            self.to.write_all(&frame).await?;
        } else {
            self.to.write_all(&header).await?;
            for part in parts {
                self.to.write_all(part).await?;
            }
        }
        self.to.flush().await?;
        self.incomplete = false;
        Ok((HEADER_BYTES + body_bytes) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;
    use tokio::time::timeout;

    use super::*;
    use crate::rpc::read_body;

    #[tokio::test]
    async fn frames_are_read_as_they_were_written() {
        let mut wire = Vec::new();
        let mut writer = FrameWriter::new(&mut wire);
        writer.write(FrameKind::TensorRef, &[b"header", b"digest"]).await.unwrap();
        writer.write(FrameKind::Tensor, &[b"header", &vec![7; MAX_COPIED_BYTES]]).await.unwrap();
        writer.write(FrameKind::Heartbeat, &[]).await.unwrap();
        let mut wire = wire.as_slice();
        for (kind, bytes) in
            [(FrameKind::TensorRef, 12), (FrameKind::Tensor, 6 + MAX_COPIED_BYTES), (FrameKind::Heartbeat, 0)]
        {
            let header = Header::read(&mut wire).await.unwrap().unwrap();
            assert_eq!((FrameKind::of(header), header.body_bytes), (Some(kind), bytes as u64));
            read_body(&mut wire, header.body_bytes).await.unwrap();
        }
        assert!(Header::read(&mut wire).await.unwrap().is_none());
        assert_eq!(FrameKind::of(Header { number: 77, body_bytes: 0 }), None);
    }

    #[tokio::test]
    async fn cancelled_write_ends_the_writer() {
        let (local, _peer) = duplex(4);
        let mut writer = FrameWriter::new(local);
        let write = writer.write(FrameKind::Reply, &[b"a long reply"]);
        assert!(timeout(Duration::from_millis(1), write).await.is_err());
        assert!(writer.write(FrameKind::Error, &[b"reason"]).await.is_err());
    }
}
