//! Finds stop strings in a stream of bytes.
//!
//! Invariant: `matched` is the length of the longest beginning of the stop string that ends the bytes so far. A byte
//! costs constant time on average, however long the stop strings are (Knuth, Morris and Pratt, 1977).

/// Finds the first stop string to be complete.
#[derive(Debug)]
pub(crate) struct StopMatcher(Vec<Pattern>);

/// One stop string.
#[derive(Debug)]
struct Pattern {
    bytes: Vec<u8>,
    /// `borders[n]`: the length of the longest beginning of `bytes[..=n]` that also ends it, without being all of it.
    borders: Vec<usize>,
    matched: usize,
}

impl StopMatcher {
    /// A matcher of `stop`. No stop string is empty.
    pub(crate) fn new(stop: &[String]) -> Self {
        Self(stop.iter().map(|stop| Pattern::new(stop.as_bytes())).collect())
    }

    /// Adds a byte. Returns the length of the stop string that the byte completes; of several, the longest.
    pub(crate) fn push(&mut self, byte: u8) -> Option<usize> {
        self.0.iter_mut().filter_map(|pattern| pattern.push(byte)).max()
    }

    /// The number of bytes at the end that can belong to a stop string.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.0.iter().map(|pattern| pattern.matched).max().unwrap_or(0)
    }
}

impl Pattern {
    fn new(bytes: &[u8]) -> Self {
        let mut borders = vec![0; bytes.len()];
        let mut length = 0;
        for position in 1..bytes.len() {
            while length > 0 && bytes[position] != bytes[length] {
                length = borders[length - 1];
            }
            length += usize::from(bytes[position] == bytes[length]);
            borders[position] = length;
        }
        Self { bytes: bytes.to_vec(), borders, matched: 0 }
    }

    fn push(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        if self.matched < self.bytes.len() {
            return None;
        }
        self.matched = self.borders[self.matched - 1];
        Some(self.bytes.len())
    }
}
