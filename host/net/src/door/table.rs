//! The open connections of a server.
//!
//! Invariant: `per_address` holds exactly the addresses in `open`, and the number of their connections. A connection
//! that must make room leaves the table at once; its task closes the socket a moment later.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tightwad_core::sync;
use tokio::time::Instant;

use crate::door::activity::{Activity, Phase};

/// The open connections of a server, and their limits.
pub(crate) struct ConnectionTable {
    max_total: usize,
    max_per_address: usize,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    next_id: u64,
    open: HashMap<u64, (IpAddr, Arc<Activity>)>,
    per_address: HashMap<IpAddr, usize>,
}

/// The place of a connection. Dropping it frees the place.
pub(crate) struct Place {
    id: u64,
    activity: Arc<Activity>,
    table: Arc<ConnectionTable>,
}

impl ConnectionTable {
    pub(crate) fn new(max_total: usize, max_per_address: usize) -> Self {
        Self { max_total, max_per_address, connections: Mutex::default() }
    }

    /// Takes a place for a connection from `address`. At a limit, the connection that has waited for its client for the
    /// longest time must go: an attacker's half-open connection is older than the connection of an honest client, whose
    /// header arrives at once. `None`: all connections work.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut connections = sync::lock(&self.connections);
        let from_address = connections.per_address.get(&address).copied().unwrap_or(0);
        if !address.is_loopback() && from_address >= self.max_per_address {
            connections.evict(Some(address)).then_some(())?;
        }
        if connections.open.len() >= self.max_total {
            connections.evict(None).then_some(())?;
        }
        let (id, activity) = (connections.next_id, Arc::new(Activity::new()));
        connections.next_id += 1;
        connections.open.insert(id, (address, activity.clone()));
        *connections.per_address.entry(address).or_default() += 1;
        Some(Place { id, activity, table: self.clone() })
    }

    /// Closes the connection that has waited for the longest time. False: all connections work.
    pub(crate) fn evict_one(&self) -> bool {
        sync::lock(&self.connections).evict(None)
    }
}

impl Connections {
    /// Closes the connection that has waited for the longest time, of `address` if there is one. Connections with an
    /// incomplete body go only when no other connection waits.
    fn evict(&mut self, address: Option<IpAddr>) -> bool {
        let waiting =
            self.open.iter().filter(|(_, (from, _))| address.is_none_or(|address| *from == address));
        let oldest = waiting.filter_map(|(&id, (_, activity))| Some((rank(activity)?, id))).min();
        let Some((_, id)) = oldest else { return false };
        if let Some(activity) = self.remove(id) {
            activity.close();
        }
        true
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Activity>> {
        let (address, activity) = self.open.remove(&id)?;
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
        Some(activity)
    }
}

/// The order in which waiting connections must go. `None`: the connection works.
fn rank(activity: &Activity) -> Option<(bool, Instant)> {
    match activity.phase() {
        _ if activity.is_blocked() => None,
        (Phase::Header | Phase::Idle, since) => Some((false, since)),
        (Phase::Body, since) => Some((true, since)),
        (Phase::Handling | Phase::Responding | Phase::Upgraded, _) => None,
    }
}

impl Place {
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        sync::lock(&self.table.connections).remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 66));
    const HONEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn table(max_total: usize, max_per_address: usize) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable::new(max_total, max_per_address))
    }

    async fn pass_time() {
        tokio::time::advance(Duration::from_millis(10)).await;
    }

    fn is_closed(place: &Place) -> bool {
        place.activity.closing().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn longest_waiting_connection_makes_room() {
        let table = table(2, 2);
        let half_open = table.enter(ATTACKER).unwrap();
        pass_time().await;
        let younger = table.enter(ATTACKER).unwrap();
        pass_time().await;
        let honest = table.enter(HONEST).unwrap();
        assert!(is_closed(&half_open) && !is_closed(&younger) && !is_closed(&honest));
        drop(half_open);
        assert_eq!(sync::lock(&table.connections).open.len(), 2, "the place was freed once");
    }

    #[tokio::test(start_paused = true)]
    async fn address_at_its_limit_displaces_its_own_connections() {
        let table = table(10, 2);
        let honest = table.enter(HONEST).unwrap();
        pass_time().await;
        let first = table.enter(ATTACKER).unwrap();
        pass_time().await;
        let _second = table.enter(ATTACKER).unwrap();
        let _third = table.enter(ATTACKER).unwrap();
        assert!(is_closed(&first) && !is_closed(&honest));
    }

    #[tokio::test(start_paused = true)]
    async fn working_connections_stay() {
        let table = table(2, 2);
        let places = [table.enter(ATTACKER).unwrap(), table.enter(HONEST).unwrap()];
        places[0].activity.begin_request(true);
        places[1].activity.enter(Phase::Body);
        pass_time().await;
        let third = table.enter(HONEST).unwrap();
        assert!(is_closed(&places[1]), "the incomplete body goes");
        third.activity.begin_request(true);
        assert!(table.enter(HONEST).is_none(), "both connections work");
    }

    #[tokio::test(start_paused = true)]
    async fn connection_with_unread_bytes_is_not_idle() {
        let table = table(1, 1);
        let place = table.enter(HONEST).unwrap();
        place.activity.enter(Phase::Idle);
        place.activity.on_write_blocked();
        assert!(table.enter(HONEST).is_none(), "a part of the response waits");
        place.activity.on_written();
        assert!(table.enter(HONEST).is_some() && is_closed(&place));
    }

    #[tokio::test]
    async fn loopback_has_no_limit_of_its_own() {
        let table = table(4, 1);
        let local = IpAddr::from([127, 0, 0, 1]);
        let places: Vec<Place> = (0..4).map(|_| table.enter(local).unwrap()).collect();
        assert!(places.iter().all(|place| !is_closed(place)));
    }
}
