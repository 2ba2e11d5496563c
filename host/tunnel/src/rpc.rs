//! The commands of llama.cpp's RPC (`ggml-rpc.cpp`, protocol 7.0).
//!
//! A command consists of its number (one byte), the length of its body (8 bytes, little endian) and its body. A reply
//! consists of a length and a body. The server processes commands in order, and does not reply to all of them.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes before the body of a command or a frame: number and length.
pub(crate) const HEADER_BYTES: usize = 9;
/// Bytes of a serialized tensor (`rpc_tensor`).
const TENSOR_BYTES: u64 = 296;
/// Bytes of `SET_TENSOR` before the data: the tensor, the cache flag, the offset.
pub(crate) const TENSOR_HEADER_BYTES: usize = 296 + 1 + 8;
/// The offset of the cache flag in the body of `SET_TENSOR`.
pub(crate) const CACHE_FLAG_OFFSET: usize = 296;
/// The offset of the data's position in the body of `SET_TENSOR`.
pub(crate) const SET_OFFSET: usize = 297;
/// The offsets of the data's position and of its length in the body of `GET_TENSOR`.
pub(crate) const GET_OFFSET: usize = 296;
pub(crate) const GET_LENGTH: usize = 304;

/// The initial capacity of a buffer for a body.
const INITIAL_BYTES: usize = 64 << 10;

/// A command. The discriminant is the number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RpcCommand {
    AllocBuffer,
    GetAlignment,
    GetMaxSize,
    BufferGetBase,
    FreeBuffer,
    BufferClear,
    SetTensor,
    SetTensorHash,
    GetTensor,
    CopyTensor,
    GraphCompute,
    GetDeviceMemory,
    InitTensor,
    GetAllocSize,
    Hello,
    DeviceCount,
    GraphRecompute,
    MemsetTensor,
}

impl RpcCommand {
    pub(crate) const ALL: [Self; 18] = [
        Self::AllocBuffer,
        Self::GetAlignment,
        Self::GetMaxSize,
        Self::BufferGetBase,
        Self::FreeBuffer,
        Self::BufferClear,
        Self::SetTensor,
        Self::SetTensorHash,
        Self::GetTensor,
        Self::CopyTensor,
        Self::GraphCompute,
        Self::GetDeviceMemory,
        Self::InitTensor,
        Self::GetAllocSize,
        Self::Hello,
        Self::DeviceCount,
        Self::GraphRecompute,
        Self::MemsetTensor,
    ];

    /// The command with this number.
    ///
    /// # Errors
    ///
    /// An error for a number that this version of the RPC does not have.
    pub(crate) fn from_number(number: u8) -> io::Result<Self> {
        Self::ALL.get(usize::from(number)).copied().ok_or_else(|| {
            io::Error::other(format!(
                "command {number} of llama.cpp's RPC is unknown: run the same version of tightwad on both machines"
            ))
        })
    }

    /// The length of the command's body in bytes; `None` if the length varies.
    pub(crate) fn body_bytes(self) -> Option<u64> {
        Some(match self {
            Self::SetTensor | Self::GraphCompute => return None,
            Self::DeviceCount => 0,
            Self::GetAlignment | Self::GetMaxSize | Self::GetDeviceMemory | Self::GraphRecompute => 4,
            Self::BufferGetBase | Self::FreeBuffer => 8,
            Self::BufferClear => 9,
            Self::AllocBuffer => 12,
            Self::Hello => 24,
            Self::InitTensor => TENSOR_BYTES,
            Self::SetTensorHash | Self::GetTensor => TENSOR_BYTES + 16,
            Self::MemsetTensor => TENSOR_BYTES + 17,
            Self::CopyTensor => 2 * TENSOR_BYTES,
            // The device, the tensor and its ten operands.
            Self::GetAllocSize => 4 + 11 * TENSOR_BYTES,
        })
    }

    /// The length of the reply's body in bytes; `None` for commands without a reply. A reply to `GET_TENSOR` has the
    /// length that the command requests.
    pub(crate) fn reply_bytes(self) -> Option<u64> {
        match self {
            Self::SetTensorHash | Self::CopyTensor => Some(1),
            Self::DeviceCount => Some(4),
            Self::GetAlignment | Self::GetMaxSize | Self::BufferGetBase | Self::GetAllocSize => Some(8),
            Self::AllocBuffer | Self::GetDeviceMemory => Some(16),
            Self::Hello => Some(28),
            _ => None,
        }
    }

    /// Checks the announced length of the command's body against `max_bytes` and the command's own length.
    pub(crate) fn check_body(self, bytes: u64, max_bytes: u64) -> io::Result<()> {
        let valid = match self.body_bytes() {
            Some(exact) => bytes == exact,
            None => bytes <= max_bytes,
        };
        if valid {
            return Ok(());
        }
        Err(io::Error::other(match self.body_bytes() {
            Some(exact) => format!("the command {self:?} has {bytes} bytes instead of {exact}"),
            None => format!("the command {self:?} has {bytes} bytes, more than the limit of {max_bytes}"),
        }))
    }
}

/// The start of a command or of a frame: its number and the length of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub number: u8,
    pub body_bytes: u64,
}

impl Header {
    /// Reads the next header; `None` at the end of the stream.
    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let number = match from.read_u8().await {
            Ok(number) => number,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self { number, body_bytes: from.read_u64_le().await? }))
    }

    /// The header's bytes.
    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.number;
        bytes[1..].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes
    }
}

/// The bytes of a command.
pub(crate) fn encode(command: RpcCommand, body: &[u8]) -> Vec<u8> {
    let header = Header { number: command as u8, body_bytes: body.len() as u64 };
    [&header.encode()[..], body].concat()
}

/// Reads exactly `bytes` bytes. The buffer grows with the received bytes, because the announced length can be wrong.
pub(crate) async fn read_body(from: &mut (impl AsyncRead + Unpin), bytes: u64) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(usize::try_from(bytes).map_or(0, |bytes| bytes.min(INITIAL_BYTES)));
    let read = from.take(bytes).read_to_end(&mut body).await?;
    if (read as u64) < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

/// The little-endian number at `offset` of `body`.
pub(crate) fn number_at(body: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(body.get(offset..)?.first_chunk().copied()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_match_the_positions_of_the_commands() {
        for (number, command) in RpcCommand::ALL.into_iter().enumerate() {
            assert_eq!(command as usize, number);
        }
        // `ggml-rpc.cpp` asserts this number.
        assert_eq!(RpcCommand::from_number(14).unwrap(), RpcCommand::Hello);
        assert!(RpcCommand::from_number(18).unwrap_err().to_string().contains("command 18"));
    }

    #[test]
    fn bodies_have_the_length_of_their_command() {
        assert!(RpcCommand::AllocBuffer.check_body(12, 0).is_ok());
        assert!(RpcCommand::AllocBuffer.check_body(16, 100).is_err());
        assert!(RpcCommand::SetTensor.check_body(400, 400).is_ok());
        let error = RpcCommand::SetTensor.check_body(401, 400).unwrap_err().to_string();
        assert!(error.contains("401 bytes") && error.contains("limit of 400"), "{error}");
    }

    #[tokio::test]
    async fn wrong_length_reads_no_more_than_the_received_bytes() {
        let mut wire: &[u8] = b"abc";
        let error = read_body(&mut wire, 1 << 40).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
