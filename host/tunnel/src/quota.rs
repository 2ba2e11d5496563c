//! The memory that a worker lends, and the part of it that each tunnel uses.
//!
//! Invariant: the used bytes of a quota are the sum of the reservations of its tunnels. A tunnel that ended has none.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tightwad_core::sync;

/// The maximum number of buffers of one tunnel. llama.cpp needs about four per context and model.
const MAX_BUFFERS: usize = 4096;

/// The memory that a worker lends. All tunnels of the worker share it.
#[derive(Debug)]
pub struct MemoryQuota {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl MemoryQuota {
    /// A quota of `limit_bytes` bytes.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, used_bytes: AtomicU64::new(0) }
    }

    /// The limit and the reserved part of it, in bytes.
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        (self.limit_bytes, self.used_bytes.load(Ordering::Relaxed))
    }

    /// Reserves `bytes`. Returns false if the quota has less left.
    fn reserve(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit_bytes);
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn release(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The reservations of one tunnel. Dropping them releases their memory.
pub(crate) struct Reservations {
    quota: Arc<MemoryQuota>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The bytes of all buffers, and of the allocations that the server has not answered yet.
    total_bytes: u64,
    /// Allocations that the server has not answered yet.
    pending: usize,
    /// The sizes of the buffers, by the server's id of the buffer.
    buffers: HashMap<u64, u64>,
}

impl Reservations {
    pub(crate) fn new(quota: Arc<MemoryQuota>) -> Self {
        Self { quota, state: Mutex::default() }
    }

    /// The bytes that this tunnel has reserved. No tensor of the tunnel is larger.
    pub(crate) fn total_bytes(&self) -> u64 {
        sync::lock(&self.state).total_bytes
    }

    /// Reserves memory for an allocation. Returns false if the quota has less left, or if the tunnel has too many
    /// buffers.
    pub(crate) fn begin(&self, bytes: u64) -> bool {
        let mut state = sync::lock(&self.state);
        if state.buffers.len() + state.pending >= MAX_BUFFERS || !self.quota.reserve(bytes) {
            let (limit, used) = self.quota.usage();
            let buffers = state.buffers.len();
            tracing::warn!(bytes, limit, used, buffers, "a pool requests more memory than this worker lends");
            return false;
        }
        state.total_bytes += bytes;
        state.pending += 1;
        true
    }

    /// Records the server's reply to an allocation of `bytes`. `buffer` is its id, or 0 if the allocation failed.
    pub(crate) fn complete(&self, bytes: u64, buffer: u64) {
        let mut state = sync::lock(&self.state);
        state.pending -= 1;
        let unused = match buffer {
            0 => bytes,
            // The server reuses an id only after it has freed the buffer.
            _ => state.buffers.insert(buffer, bytes).unwrap_or_default(),
        };
        state.total_bytes -= unused;
        self.quota.release(unused);
    }

    /// Releases the memory of a buffer.
    ///
    /// # Errors
    ///
    /// An error if the tunnel has no such buffer. The server would end at this command.
    pub(crate) fn free(&self, buffer: u64) -> io::Result<()> {
        let mut state = sync::lock(&self.state);
        let Some(bytes) = state.buffers.remove(&buffer) else {
            return Err(io::Error::other("the host frees a buffer that it has not allocated"));
        };
        state.total_bytes -= bytes;
        self.quota.release(bytes);
        Ok(())
    }
}

impl Drop for Reservations {
    fn drop(&mut self) {
        self.quota.release(self.total_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successive_allocations_are_both_counted() {
        let quota = Arc::new(MemoryQuota::new(1000));
        let reservations = Reservations::new(quota.clone());
        assert!(reservations.begin(300) && reservations.begin(200) && !reservations.begin(501));
        assert_eq!((quota.usage(), reservations.total_bytes()), ((1000, 500), 500));
        reservations.complete(300, 7);
        reservations.complete(200, 0);
        assert_eq!(quota.usage(), (1000, 300));
        assert!(reservations.free(8).is_err());
        reservations.free(7).unwrap();
        assert_eq!(quota.usage(), (1000, 0));
        assert!(reservations.begin(1000) && !reservations.begin(u64::MAX));
        drop(reservations);
        assert_eq!(quota.usage(), (1000, 0));
    }

    #[test]
    fn number_of_buffers_is_limited() {
        let reservations = Reservations::new(Arc::new(MemoryQuota::new(1000)));
        assert!((0..MAX_BUFFERS).all(|_| reservations.begin(0)));
        assert!(!reservations.begin(0));
    }
}
