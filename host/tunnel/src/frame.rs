//! Frames of a tunnel, and the commands of llama.cpp's RPC (`ggml-rpc.cpp`) that they carry.
//!
//! A frame is its kind (one byte), the length of its body (8 bytes, little endian) and its body. A
//! command of llama.cpp's has the same form.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes before a body.
pub(crate) const HEAD: usize = 9;
/// Largest body that is taken in: larger than any tensor.
const LARGEST: u64 = 64 << 30;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A sign of life.
    Beat,
    /// A command for the RPC server.
    Command,
    /// A tensor that the worker has: the head of `SET_TENSOR` and the SHA-256 of the data.
    Known,
    /// The body of `SET_TENSOR` with data worth keeping.
    Keep,
    /// The body of `GRAPH_COMPUTE`, as [`super::graph`] packs it.
    Graph,
    /// What the RPC server answers.
    Answer,
    /// What the worker keeps: one SHA-256 after the other.
    Kept,
    /// Why the worker ends the tunnel.
    Fault,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Beat,
        Self::Command,
        Self::Known,
        Self::Keep,
        Self::Graph,
        Self::Answer,
        Self::Kept,
        Self::Fault,
    ];
}

/// Commands that a tunnel looks at, by llama.cpp's numbers.
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
pub(crate) const TENSOR_HEAD: usize = 296 + 1 + 8;
/// Where the cache flag is.
pub(crate) const CACHE_FLAG: usize = 296;

/// A byte and a body: a frame, or a command.
#[derive(Debug)]
pub(crate) struct Message {
    pub kind: u8,
    pub body: Vec<u8>,
}

impl Message {
    /// Reads the next one; `None` at the end.
    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let kind = match from.read_u8().await {
            Ok(kind) => kind,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = from.read_u64_le().await?;
        if length > LARGEST {
            return Err(io::Error::other(format!("a message of {length} bytes is none")));
        }
        // Grows with what comes, not with what was promised.
        let mut body = Vec::new();
        let read = from.take(length).read_to_end(&mut body).await?;
        if (read as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(Self { kind, body }))
    }

    /// The bytes of this message.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        bytes(self.kind, &[&self.body])
    }

    /// How many bytes it was.
    pub(crate) fn bytes_on_wire(&self) -> u64 {
        (HEAD + self.body.len()) as u64
    }

    /// As a frame; `None`: it is none.
    pub(crate) fn frame(&self) -> Option<Kind> {
        Kind::ALL.get(usize::from(self.kind)).copied()
    }
}

fn bytes(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(HEAD + length);
    bytes.push(kind);
    bytes.extend((length as u64).to_le_bytes());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Writes a frame whose body is `parts`; returns its bytes.
pub(crate) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    kind: Kind,
    parts: &[&[u8]],
) -> io::Result<usize> {
    // In one piece: two would be two packets.
    let bytes = bytes(kind as u8, parts);
    to.write_all(&bytes).await?;
    to.flush().await?;
    Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_as_they_went() {
        let mut wire = Vec::new();
        write(&mut wire, Kind::Known, &[b"head", b"digest"]).await.unwrap();
        write(&mut wire, Kind::Beat, &[]).await.unwrap();
        let mut wire = wire.as_slice();
        let first = Message::read(&mut wire).await.unwrap().unwrap();
        assert_eq!((first.frame(), first.body.as_slice()), (Some(Kind::Known), b"headdigest".as_slice()));
        let second = Message::read(&mut wire).await.unwrap().unwrap();
        assert_eq!((second.frame(), second.body.len()), (Some(Kind::Beat), 0));
        assert!(Message::read(&mut wire).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_cut_or_too_large_is_an_error() {
        let mut cut: &[u8] = &[1, 5, 0, 0, 0, 0, 0, 0, 0, b'a'];
        assert!(Message::read(&mut cut).await.is_err());
        let mut large: &[u8] = &[1, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(Message::read(&mut large).await.is_err());
        assert_eq!(Message { kind: 77, body: Vec::new() }.frame(), None);
    }
}
