//! Counts the accepted uploads.
//!
//! Invariant: `per_address` holds exactly the addresses with accepted uploads, and their numbers. The sum of
//! the numbers is `total`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tightwad_core::sync;

/// Limits the accepted uploads, per address and in total.
pub(crate) struct Uploads {
    max_per_address: usize,
    max_total: usize,
    accepted: Mutex<Accepted>,
}

#[derive(Default)]
struct Accepted {
    total: usize,
    per_address: HashMap<IpAddr, usize>,
}

/// An accepted upload. Dropping it ends the upload.
pub(crate) struct UploadPermit {
    uploads: Arc<Uploads>,
    address: IpAddr,
}

impl Uploads {
    pub(crate) fn new(max_per_address: usize, max_total: usize) -> Self {
        Self { max_per_address, max_total, accepted: Mutex::default() }
    }

    /// Accepts an upload to `address`. `None`: a limit is reached.
    pub(crate) fn begin(self: &Arc<Self>, address: IpAddr) -> Option<UploadPermit> {
        let mut accepted = self.lock();
        let address_uploads = accepted.per_address.get(&address).copied().unwrap_or(0);
        if address_uploads >= self.max_per_address || accepted.total >= self.max_total {
            return None;
        }
        accepted.per_address.insert(address, address_uploads + 1);
        accepted.total += 1;
        Some(UploadPermit { uploads: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Accepted> {
        sync::lock(&self.accepted)
    }
}

impl Drop for UploadPermit {
    fn drop(&mut self) {
        let mut accepted = self.uploads.lock();
        accepted.total = accepted.total.saturating_sub(1);
        if let Some(address_uploads) = accepted.per_address.get_mut(&self.address) {
            *address_uploads = address_uploads.saturating_sub(1);
            if *address_uploads == 0 {
                accepted.per_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_permit_frees_its_place() {
        let uploads = Arc::new(Uploads::new(2, 3));
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = uploads.begin(a).unwrap();
        let _second = uploads.begin(a).unwrap();
        assert!(uploads.begin(a).is_none());
        let _third = uploads.begin(b).unwrap();
        assert!(uploads.begin(b).is_none(), "the total limit is reached");
        drop(first);
        let _fourth = uploads.begin(a).unwrap();
    }
}
