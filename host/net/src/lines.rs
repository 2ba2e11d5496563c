//! Reads a response line by line.

use reqwest::Response;

/// The longest line that the reader buffers.
const MAX_LINE_BYTES: usize = 1 << 20;

/// The lines of a body, without their line ends.
pub struct Lines {
    response: Response,
    buffer: Vec<u8>,
}

/// The reason why a line cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] reqwest::Error),
    /// The body ended within a line.
    #[error("the reply ended in the middle of a line")]
    Truncated,
    /// A line is longer than 1 MiB.
    #[error("the reply has a line of more than 1 MiB")]
    TooLong,
}

impl Lines {
    /// The lines of `response`.
    #[must_use]
    pub fn new(response: Response) -> Self {
        Self { response, buffer: Vec::new() }
    }

    /// The next line; `None` at the end of the body.
    ///
    /// # Errors
    ///
    /// [`LineError`] if the connection fails, the body ends within a line, or a line is longer than 1 MiB.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.truncate(line.trim_ascii_end().len());
                return Ok(Some(line));
            }
            match self.response.chunk().await? {
                Some(chunk) if self.buffer.len() + chunk.len() > MAX_LINE_BYTES => {
                    return Err(LineError::TooLong);
                }
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(LineError::Truncated),
            }
        }
    }
}
