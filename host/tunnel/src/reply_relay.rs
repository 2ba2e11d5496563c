//! The worker's relay of the RPC server's replies to the host.
//!
//! Invariant: each reply belongs to the oldest command without one, and has the length that the command determines.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{Mutex, mpsc};

use crate::frame::{FrameKind, FrameWriter};
use crate::protocol::READ_BUFFER_BYTES;
use crate::quota::Reservations;
use crate::rpc::{number_at, read_body};

/// The maximum number of commands without a reply. llama.cpp waits for each reply. Further commands wait.
pub(crate) const MAX_EXPECTED_REPLIES: usize = 64;

/// The reply to a command, in the order of the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpectedReply {
    /// A body of this length.
    Body(u64),
    /// The reply to an allocation of this size.
    Buffer(u64),
    /// A part of a tensor. `total` is the length of the tensor, before its first part.
    TensorPart { bytes: u64, total: Option<u64> },
    /// The worker itself refuses an allocation, which the server does not see.
    Refusal,
}

impl ExpectedReply {
    /// The length of the server's reply.
    fn body_bytes(self) -> u64 {
        match self {
            Self::Body(bytes) | Self::TensorPart { bytes, .. } => bytes,
            Self::Buffer(_) => 16,
            Self::Refusal => 0,
        }
    }
}

/// Relays the replies of the RPC server to the host.
pub(crate) struct ReplyRelay<'a, W> {
    from_server: BufReader<OwnedReadHalf>,
    expected: mpsc::Receiver<ExpectedReply>,
    to_host: &'a Mutex<FrameWriter<W>>,
    reservations: &'a Reservations,
}

impl<'a, W: AsyncWrite + Unpin> ReplyRelay<'a, W> {
    pub(crate) fn new(
        from_server: OwnedReadHalf,
        expected: mpsc::Receiver<ExpectedReply>,
        to_host: &'a Mutex<FrameWriter<W>>,
        reservations: &'a Reservations,
    ) -> Self {
        let from_server = BufReader::with_capacity(READ_BUFFER_BYTES, from_server);
        Self { from_server, expected, to_host, reservations }
    }

    /// Relays replies until the server ends.
    pub(crate) async fn run(&mut self) -> io::Result<()> {
        loop {
            let expected = tokio::select! {
                Some(expected) = self.expected.recv() => expected,
                buffer = self.from_server.fill_buf() => {
                    if buffer?.is_empty() {
                        return Err(server_ended());
                    }
                    // A command enters the queue before the server receives the command.
                    self.expected.try_recv().map_err(|_| io::Error::other("the RPC server replies to no command"))?
                }
            };
            self.relay(expected).await?;
        }
    }

    async fn relay(&mut self, expected: ExpectedReply) -> io::Result<()> {
        if expected == ExpectedReply::Refusal {
            // The reply that the server sends when an allocation fails.
            let reply = [16_u64, 0, 0].map(u64::to_le_bytes).concat();
            return self.write(&[&reply]).await;
        }
        let length = match self.from_server.read_u64_le().await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(server_ended()),
            length => length?,
        };
        if length != expected.body_bytes() {
            let bytes = expected.body_bytes();
            return Err(io::Error::other(format!(
                "the RPC server replies with {length} bytes instead of {bytes}"
            )));
        }
        let body = read_body(&mut self.from_server, length).await?;
        let total = match expected {
            ExpectedReply::Buffer(bytes) => {
                self.reservations.complete(bytes, number_at(&body, 0).unwrap_or_default());
                Some(length)
            }
            ExpectedReply::TensorPart { total, .. } => total,
            _ => Some(length),
        };
        match total {
            Some(total) => self.write(&[&total.to_le_bytes(), &body]).await,
            None => self.write(&[&body]).await,
        }
    }

    async fn write(&self, parts: &[&[u8]]) -> io::Result<()> {
        self.to_host.lock().await.write(FrameKind::Reply, parts).await.map(drop)
    }
}

fn server_ended() -> io::Error {
    io::Error::other("the RPC server ended")
}
