//! The state that the clients of a soak run share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The state that the clients share.
pub(crate) struct Run {
    pub(crate) client: reqwest::Client,
    pub(crate) url: String,
    pub(crate) stopped: AtomicBool,
    pub(crate) answers: AtomicU64,
    pub(crate) disconnects: AtomicU64,
    pub(crate) stalled_readers: AtomicU64,
}

impl Run {
    /// True until the end of the run.
    pub(crate) fn is_running(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }
}
