//! Reads a reply line by line.
//!
//! Invariant: the bytes of `buffer` before `start` were returned, and those before `scanned` hold no further
//! line end. A server that sends single bytes therefore costs one scan of each byte.

use crate::bounded::{Reply, ReplyError};

/// The lines of a body, without their line ends.
pub struct Lines {
    reply: Reply,
    max_line_bytes: usize,
    buffer: Vec<u8>,
    start: usize,
    scanned: usize,
}

/// The reason why a line cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The connection failed, or a limit of the reply is reached.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The body ended within a line.
    #[error("the reply ended in the middle of a line")]
    Truncated,
    /// A line is longer than the limit in bytes.
    #[error("the reply has a line of more than {0} bytes")]
    TooLong(usize),
}

impl Lines {
    /// The lines of `reply`, each of at most `max_line_bytes`.
    #[must_use]
    pub fn new(reply: Reply, max_line_bytes: usize) -> Self {
        Self { reply, max_line_bytes, buffer: Vec::new(), start: 0, scanned: 0 }
    }

    /// The next line; `None` at the end of the body.
    ///
    /// # Errors
    ///
    /// [`LineError`] if the reply cannot be read, ends within a line, or has a line that is too long.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            let end = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
            let line = self.start..end.map_or(self.buffer.len(), |end| self.scanned + end);
            if line.len() > self.max_line_bytes {
                return Err(LineError::TooLong(self.max_line_bytes));
            }
            if end.is_some() {
                (self.start, self.scanned) = (line.end + 1, line.end + 1);
                return Ok(Some(self.buffer[line].trim_ascii_end().to_vec()));
            }
            self.buffer.drain(..self.start);
            (self.start, self.scanned) = (0, self.buffer.len());
            match self.reply.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(LineError::Truncated),
            }
        }
    }
}
