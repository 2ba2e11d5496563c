//! Bounded reading of what may be hostile.

use std::io::{BufRead, ErrorKind};

use crate::disk::gguf_error::GgufError;

/// Bytes that come one after another, of which only so many are read, and fewer kept.
pub(crate) struct Input<R> {
    from: R,
    read: u64,
    limit: u64,
    /// Whether more would be there behind the limit.
    more: bool,
}

impl<R: BufRead> Input<R> {
    /// Reads at most `limit` of the `size` bytes that `from` has.
    pub(crate) fn new(from: R, size: u64, limit: u64) -> Self {
        Self { from, read: 0, limit: size.min(limit), more: size > limit }
    }

    /// How many bytes were read.
    pub(crate) fn position(&self) -> u64 {
        self.read
    }

    /// Reads `count` bytes, a bounded number at a time.
    pub(crate) fn feed(&mut self, count: u64, mut to: impl FnMut(&[u8])) -> Result<(), GgufError> {
        if count > self.limit - self.read {
            return Err(if self.more { GgufError::Long } else { GgufError::Ends });
        }
        self.read += count;
        let mut left = count;
        while left > 0 {
            let there = match self.from.fill_buf() {
                Ok([]) => return Err(GgufError::Ends),
                Ok(there) => there,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(GgufError::Read(error)),
            };
            let count = usize::try_from(left).map_or(there.len(), |left| left.min(there.len()));
            to(&there[..count]);
            self.from.consume(count);
            left -= count as u64;
        }
        Ok(())
    }

    /// Passes over `count` bytes.
    pub(crate) fn skip(&mut self, count: u64) -> Result<(), GgufError> {
        self.feed(count, |_| ())
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let (mut array, mut at) = ([0; N], 0);
        self.feed(N as u64, |bytes| {
            array[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        })?;
        Ok(array)
    }

    /// A little-endian number.
    pub(crate) fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A little-endian number.
    pub(crate) fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A string, of which at most `longest` bytes are kept.
    pub(crate) fn string(&mut self, longest: usize) -> Result<Vec<u8>, GgufError> {
        let count = self.u64()?;
        let mut kept = Vec::new();
        self.feed(count, |bytes| {
            kept.extend_from_slice(&bytes[..bytes.len().min(longest - kept.len())]);
        })?;
        Ok(kept)
    }
}
