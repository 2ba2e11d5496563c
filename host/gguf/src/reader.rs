//! Bounded reading of untrusted input.

use std::io::{BufRead, ErrorKind};

use crate::error::GgufError;

/// Reads at most a limited number of bytes, and keeps only a bounded part of them in memory.
pub(crate) struct BoundedReader<R> {
    source: R,
    /// The number of bytes read so far; at most `size` and `limit`.
    read: u64,
    size: u64,
    limit: u64,
}

impl<R: BufRead> BoundedReader<R> {
    /// Reads at most `limit` of the `size` bytes that `source` has.
    pub(crate) fn new(source: R, size: u64, limit: u64) -> Self {
        Self { source, read: 0, size, limit }
    }

    /// The number of bytes read so far.
    pub(crate) fn position(&self) -> u64 {
        self.read
    }

    /// Fails unless the source has `count` further bytes within the limit.
    pub(crate) fn require(&self, count: u64) -> Result<(), GgufError> {
        if count > self.limit - self.read {
            Err(GgufError::HeaderTooLong)
        } else if count > self.size - self.read {
            Err(GgufError::Truncated)
        } else {
            Ok(())
        }
    }

    /// Reads `count` bytes and hands them to `consume` in chunks of bounded size.
    pub(crate) fn read_chunks(
        &mut self,
        count: u64,
        mut consume: impl FnMut(&[u8]),
    ) -> Result<(), GgufError> {
        self.require(count)?;
        self.read += count;
        let mut remaining = count;
        while remaining > 0 {
            let buffered = match self.source.fill_buf() {
                Ok([]) => return Err(GgufError::Truncated),
                Ok(buffered) => buffered,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(GgufError::Read(error)),
            };
            let count =
                usize::try_from(remaining).map_or(buffered.len(), |remaining| remaining.min(buffered.len()));
            consume(&buffered[..count]);
            self.source.consume(count);
            remaining -= count as u64;
        }
        Ok(())
    }

    /// Skips `count` bytes.
    pub(crate) fn skip(&mut self, count: u64) -> Result<(), GgufError> {
        self.read_chunks(count, |_| ())
    }

    /// Reads the next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let (mut array, mut filled) = ([0; N], 0);
        self.read_chunks(N as u64, |bytes| {
            array[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        })?;
        Ok(array)
    }

    /// Reads a little-endian number.
    pub(crate) fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads a little-endian number.
    pub(crate) fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads a string and keeps its first `max_bytes` bytes.
    pub(crate) fn string(&mut self, max_bytes: usize) -> Result<Vec<u8>, GgufError> {
        let count = self.u64()?;
        let mut prefix = Vec::new();
        self.read_chunks(count, |bytes| {
            prefix.extend_from_slice(&bytes[..bytes.len().min(max_bytes - prefix.len())]);
        })?;
        Ok(prefix)
    }
}
