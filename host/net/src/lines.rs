//! A response that is read line by line.

use reqwest::Response;

/// Longest line that is waited for.
const LONGEST: usize = 1 << 20;

/// Lines of a body, without their ends.
pub struct Lines {
    response: Response,
    read: Vec<u8>,
}

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] reqwest::Error),
    /// The body ended in the middle of a line.
    #[error("it broke off in the middle of a line")]
    Cut,
    /// A line does not end.
    #[error("it sent a line without an end")]
    Endless,
}

impl Lines {
    /// The lines of `response`.
    #[must_use]
    pub fn new(response: Response) -> Self {
        Self { response, read: Vec::new() }
    }

    /// The next line; `None` at the end of the body.
    ///
    /// # Errors
    ///
    /// [`LineError`] where the body is cut, or a line is longer than 1 MiB.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.read.drain(..=end).collect();
                line.truncate(line.trim_ascii_end().len());
                return Ok(Some(line));
            }
            match self.response.chunk().await? {
                Some(piece) if self.read.len() + piece.len() > LONGEST => return Err(LineError::Endless),
                Some(piece) => self.read.extend_from_slice(&piece),
                None if self.read.is_empty() => return Ok(None),
                None => return Err(LineError::Cut),
            }
        }
    }
}
