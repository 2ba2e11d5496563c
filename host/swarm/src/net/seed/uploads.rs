//! The uploads of a seeder, and their turns.
//!
//! Invariant: an accepted upload is in `uploads` until it ends or loses its turn. Only an upload with a turn
//! sends data. At most `slots` uploads have a turn. The waiting upload whose address has the fewest turns is
//! the next one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tightwad_core::sync;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// Interval at which a waiting upload looks for a turn that its holder lost. Nothing notifies it then.
const TURN_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The limits of a seeder's uploads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UploadLimits {
    /// Accepted uploads per address, the waiting ones included.
    pub(crate) max_per_address: usize,
    /// Accepted uploads, the waiting ones included.
    pub(crate) max_total: usize,
    /// Uploads with a turn.
    pub(crate) slots: usize,
    /// An upload whose reader takes nothing for this long loses its turn to a waiting one. An upload with a
    /// turn for this long loses it to an address that has at least two turns fewer.
    pub(crate) stall_timeout: Duration,
}

/// The accepted uploads.
pub(crate) struct Uploads {
    pub(crate) limits: UploadLimits,
    table: Mutex<Table>,
    turn_freed: Notify,
}

#[derive(Default)]
struct Table {
    /// The accepted uploads, in the order of their arrival.
    uploads: BTreeMap<u64, Entry>,
    last_id: u64,
}

struct Entry {
    address: IpAddr,
    state: UploadState,
}

#[derive(Clone, Copy)]
enum UploadState {
    /// The upload waits for a turn.
    Waiting,
    /// The upload has a turn.
    Sending {
        since: Instant,
        /// The time of the last data that the reader has not taken yet. `None` while this machine prepares
        /// data: the disk and the rate limit do not count as a stall.
        offered: Option<Instant>,
    },
}

/// An accepted upload. Dropping it ends the upload.
pub(crate) struct Upload {
    uploads: Arc<Uploads>,
    id: u64,
}

impl Uploads {
    pub(crate) fn new(limits: UploadLimits) -> Self {
        Self { limits, table: Mutex::default(), turn_freed: Notify::new() }
    }

    /// Accepts an upload to `address`. `None`: a limit is reached.
    pub(crate) fn begin(self: &Arc<Self>, address: IpAddr) -> Option<Upload> {
        let mut table = sync::lock(&self.table);
        if !table.has_room(address, &self.limits) {
            table.uploads.retain(|_, entry| !entry.is_stalled(self.limits.stall_timeout));
            if !table.has_room(address, &self.limits) {
                return None;
            }
        }
        table.last_id += 1;
        let id = table.last_id;
        table.uploads.insert(id, Entry { address, state: UploadState::Waiting });
        Some(Upload { uploads: self.clone(), id })
    }
}

impl Upload {
    /// Waits for a turn.
    pub(crate) async fn wait_for_turn(&self) {
        loop {
            let freed = self.uploads.turn_freed.notified();
            if sync::lock(&self.uploads.table).start(self.id, &self.uploads.limits) {
                return;
            }
            tokio::select! {
                () = freed => {}
                () = sleep(TURN_CHECK_INTERVAL) => {}
            }
        }
    }

    /// Records that the reader took all data, or that this machine offers it further data. False when the
    /// upload lost its turn.
    pub(crate) fn set_offered(&self, is_offered: bool) -> bool {
        match sync::lock(&self.uploads.table).uploads.get_mut(&self.id).map(|entry| &mut entry.state) {
            Some(UploadState::Sending { offered, .. }) => {
                *offered = is_offered.then(Instant::now);
                true
            }
            _ => false,
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        sync::lock(&self.uploads.table).uploads.remove(&self.id);
        self.uploads.turn_freed.notify_waiters();
    }
}

impl Table {
    fn has_room(&self, address: IpAddr, limits: &UploadLimits) -> bool {
        let of_address = self.uploads.values().filter(|entry| entry.address == address).count();
        of_address < limits.max_per_address && self.uploads.len() < limits.max_total
    }

    /// Gives a turn to the waiting upload `id` if it is the next one, and a turn is free or can be taken away.
    fn start(&mut self, id: u64, limits: &UploadLimits) -> bool {
        let turns = self.turns_by_address();
        let turns_of = |address| turns.get(&address).copied().unwrap_or(0);
        let waiting = self.uploads.iter().filter(|(_, entry)| matches!(entry.state, UploadState::Waiting));
        let next = waiting.min_by_key(|(id, entry)| (turns_of(entry.address), **id));
        let Some((_, Entry { address, .. })) = next.filter(|(next, _)| **next == id) else { return false };
        if turns.values().sum::<usize>() >= limits.slots {
            let Some(loser) = self.loser(turns_of(*address), &turns, limits.stall_timeout) else {
                return false;
            };
            self.uploads.remove(&loser);
        }
        let state = UploadState::Sending { since: Instant::now(), offered: None };
        self.uploads.get_mut(&id).map(|entry| entry.state = state).is_some()
    }

    /// The upload that loses its turn to an address with `turns_of_winner` turns.
    fn loser(
        &self,
        turns_of_winner: usize,
        turns: &BTreeMap<IpAddr, usize>,
        stall_timeout: Duration,
    ) -> Option<u64> {
        let loses = |entry: &Entry| match entry.state {
            UploadState::Waiting => false,
            UploadState::Sending { since, .. } => {
                let has_more = turns.get(&entry.address).is_some_and(|turns| *turns > turns_of_winner + 1);
                entry.is_stalled(stall_timeout) || (has_more && since.elapsed() >= stall_timeout)
            }
        };
        self.uploads.iter().find(|(_, entry)| loses(entry)).map(|(id, _)| *id)
    }

    fn turns_by_address(&self) -> BTreeMap<IpAddr, usize> {
        let mut turns = BTreeMap::new();
        let sending = self.uploads.values().filter(|entry| !matches!(entry.state, UploadState::Waiting));
        for entry in sending {
            *turns.entry(entry.address).or_default() += 1;
        }
        turns
    }
}

impl Entry {
    /// Whether the reader has taken nothing for `timeout`.
    fn is_stalled(&self, timeout: Duration) -> bool {
        matches!(self.state, UploadState::Sending { offered: Some(offered), .. } if offered.elapsed() >= timeout)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const STALL: Duration = Duration::from_secs(30);

    fn uploads(max_per_address: usize, max_total: usize, slots: usize) -> Arc<Uploads> {
        let limits = UploadLimits { max_per_address, max_total, slots, stall_timeout: STALL };
        Arc::new(Uploads::new(limits))
    }

    fn address(machine: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, machine])
    }

    /// Whether the upload has or gets a turn without waiting.
    fn starts(upload: &Upload) -> bool {
        upload.wait_for_turn().now_or_never().is_some()
    }

    #[tokio::test]
    async fn dropped_upload_frees_its_place() {
        let uploads = uploads(2, 3, 4);
        let first = uploads.begin(address(1)).unwrap();
        let _second = uploads.begin(address(1)).unwrap();
        assert!(uploads.begin(address(1)).is_none());
        let _third = uploads.begin(address(2)).unwrap();
        assert!(uploads.begin(address(2)).is_none(), "the total limit is reached");
        drop(first);
        let _fourth = uploads.begin(address(1)).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_upload_loses_its_turn_and_its_place() {
        let uploads = uploads(1, 9, 1);
        let stalled = uploads.begin(address(1)).unwrap();
        assert!(starts(&stalled) && stalled.set_offered(true));
        let waiting = uploads.begin(address(2)).unwrap();
        tokio::time::advance(STALL - Duration::from_millis(1)).await;
        assert!(!starts(&waiting) && stalled.set_offered(true), "the reader took data in time");
        tokio::time::advance(STALL - Duration::from_millis(1)).await;
        assert!(!starts(&waiting) && uploads.begin(address(1)).is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(starts(&waiting));
        assert!(!stalled.set_offered(false), "the upload must end");
        assert!(uploads.begin(address(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn preparation_of_data_is_not_a_stall() {
        let uploads = uploads(9, 9, 1);
        let slow = uploads.begin(address(1)).unwrap();
        assert!(starts(&slow) && slow.set_offered(true) && slow.set_offered(false));
        // The rate limit holds the upload back.
        tokio::time::advance(10 * STALL).await;
        let waiting = uploads.begin(address(2)).unwrap();
        assert!(!starts(&waiting) && slow.set_offered(true));
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_does_not_keep_all_turns() {
        let uploads = uploads(9, 99, 4);
        let greedy: Vec<Upload> = (0..6).map(|_| uploads.begin(address(1)).unwrap()).collect();
        assert!(greedy[..4].iter().all(starts) && !starts(&greedy[4]));
        let others: Vec<Upload> = (0..3).map(|_| uploads.begin(address(2)).unwrap()).collect();
        assert!(!starts(&others[0]), "a turn lasts for some time");
        tokio::time::advance(STALL).await;
        assert!(starts(&others[0]) && starts(&others[1]));
        assert!(!starts(&others[2]), "both addresses have two turns");
        assert!(!greedy[0].set_offered(true) && !greedy[1].set_offered(true) && greedy[2].set_offered(true));
        drop(others);
        // Turns that are free go to any address.
        assert!(starts(&greedy[4]) && starts(&greedy[5]));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_upload_starts_when_a_turn_is_free() {
        let uploads = uploads(9, 9, 1);
        let first = uploads.begin(address(1)).unwrap();
        assert!(starts(&first));
        let second = uploads.begin(address(1)).unwrap();
        let waiting = tokio::spawn(async move {
            second.wait_for_turn().await;
            second
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        drop(first);
        assert!(waiting.await.unwrap().set_offered(true));
    }
}
