//! How many uploads run at the same time.
//!
//! Invariant: `of` holds exactly the addresses with running uploads, and how many; their sum is `all`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tightwad_core::sync;

/// Counts uploads, by address and together.
pub(crate) struct Uploads {
    an_address: usize,
    together: usize,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// A running upload; it is over when this is dropped.
pub(crate) struct Upload {
    uploads: Arc<Uploads>,
    address: IpAddr,
}

impl Uploads {
    pub(crate) fn new(an_address: usize, together: usize) -> Self {
        Self { an_address, together, running: Mutex::default() }
    }

    /// One more to `address`, unless there are too many.
    pub(crate) fn begin(self: &Arc<Self>, address: IpAddr) -> Option<Upload> {
        let mut running = self.lock();
        let own = running.of.get(&address).copied().unwrap_or(0);
        if own >= self.an_address || running.all >= self.together {
            return None;
        }
        running.of.insert(address, own + 1);
        running.all += 1;
        Some(Upload { uploads: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        sync::lock(&self.running)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut running = self.uploads.lock();
        running.all = running.all.saturating_sub(1);
        if let Some(own) = running.of.get_mut(&self.address) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                running.of.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let uploads = Arc::new(Uploads::new(2, 3));
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = uploads.begin(a).unwrap();
        let _second = uploads.begin(a).unwrap();
        assert!(uploads.begin(a).is_none());
        let _third = uploads.begin(b).unwrap();
        assert!(uploads.begin(b).is_none(), "all places are taken");
        drop(first);
        let _again = uploads.begin(a).unwrap();
    }
}
