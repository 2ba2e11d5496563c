//! Counts what each client address uses, with a limit per client and a limit of all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tightwad_core::sync;

/// The numbers of uses by client address.
pub(crate) struct ClientCounts {
    /// The counted things, such as `sessions`.
    noun: &'static str,
    per_client: usize,
    max_total: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Permission for one use by a client. Dropping it ends the use.
pub(crate) struct ClientPermit {
    client: IpAddr,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut counts = sync::lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// A limit is reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitReached {
    /// The limit of the node.
    #[error("{0} {1} are open, the maximum of this node")]
    Node(usize, &'static str),
    /// The limit of one client.
    #[error("{client} has {open} {noun} open, the maximum per client")]
    Client { client: IpAddr, open: usize, noun: &'static str },
}

impl ClientCounts {
    pub(crate) fn new(noun: &'static str, per_client: usize, max_total: usize) -> Self {
        Self { noun, per_client, max_total, counts: Arc::default() }
    }

    /// Counts one use by `client`.
    pub(crate) fn reserve(&self, client: IpAddr) -> Result<ClientPermit, LimitReached> {
        let mut counts = sync::lock(&self.counts);
        let total: usize = counts.values().sum();
        if total >= self.max_total {
            return Err(LimitReached::Node(total, self.noun));
        }
        let open = counts.get(&client).copied().unwrap_or(0);
        if open >= self.per_client {
            return Err(LimitReached::Client { client, open, noun: self.noun });
        }
        counts.insert(client, open + 1);
        Ok(ClientPermit { client, counts: self.counts.clone() })
    }

    /// The number of uses by all clients.
    #[cfg(test)]
    pub(crate) fn total(&self) -> usize {
        sync::lock(&self.counts).values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_limited_and_released_on_drop() {
        let clients = ClientCounts::new("sessions", 2, 3);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = clients.reserve(a).ok().unwrap();
        let second = clients.reserve(a);
        assert!(second.is_ok());
        assert!(clients.reserve(a).err().unwrap().to_string().contains("10.0.0.1 has 2 sessions"));
        let third = clients.reserve(b);
        assert!(third.is_ok());
        assert!(clients.reserve(b).err().unwrap().to_string().contains("3 sessions are open"));
        drop(first);
        assert!(clients.reserve(a).is_ok());
        assert_eq!(clients.total(), 2);
    }
}
