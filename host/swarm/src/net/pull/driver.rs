//! The driver of a pull: a single task that owns the picker and the state of the pull.

use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use crate::net::exchange;
use crate::net::peer::Peer;
use crate::net::pull::event::{Address, PeerEvent};
use crate::net::pull::fetch::PullContext;
use crate::net::pull::limits::{PullLimits, Seeding};
use crate::net::pull::order::PieceOrder;
use crate::net::pull::peer_table::{PeerEntry, PeerOrigin, PeerState};
use crate::net::pull::progress_meter::ProgressMeter;
use crate::net::pull::report::{Progress, PullCounters, PullError, PullSummary};
use crate::net::pull::scheduler::Scheduler;
use crate::net::pull::transfers::Transfers;
use crate::net::pull::watch::PeerWatcher;
use crate::picker::{Event, Fault, Picker, Task};

/// Capacity of the queue of peer events.
const EVENT_QUEUE_CAPACITY: usize = 256;
/// Largest number of addresses that the driver reads in one peer exchange.
const MAX_ADDRESSES_PER_EXCHANGE: usize = 64;

/// The driver of one pull.
pub(crate) struct Driver {
    scheduler: Scheduler,
    transfers: Transfers,
    meter: ProgressMeter,
    limits: PullLimits,
    /// The number of urgent pieces at the start of the transfers' order.
    urgent: u32,
    event_rx: mpsc::Receiver<PeerEvent>,
    /// Peers that discovery finds during the pull.
    discovered: Option<mpsc::Receiver<Peer>>,
}

impl Driver {
    pub(crate) fn new(
        context: PullContext,
        picker: Box<dyn Picker>,
        order: PieceOrder,
        limits: PullLimits,
        seeding: Option<Seeding>,
        discovered: Option<mpsc::Receiver<Peer>>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let (event_tx, event_rx) = mpsc::channel(EVENT_QUEUE_CAPACITY);
        Self {
            scheduler: Scheduler::new(picker, &limits),
            transfers: Transfers::new(context, order.pieces, &limits, seeding, event_tx),
            meter: ProgressMeter::new(progress, order.progress),
            limits,
            urgent: order.urgent_count,
            event_rx,
            discovered,
        }
    }

    /// Fetches until all wanted pieces are complete, or until no peer sends them.
    pub(crate) async fn run(mut self) -> Result<PullSummary, PullError> {
        self.start_picker().await;
        while !self.transfers.remaining.is_empty() {
            self.scheduler.schedule(&mut self.transfers).await;
            self.publish_progress();
            // A pick may have found that another writer completed the last piece.
            if self.transfers.remaining.is_empty() {
                break;
            }
            self.check_stalled()?;
            self.transfers.end_slow_fetches()?;
            self.wait_for_event().await?;
            while self.transfers.tasks.try_join_next().is_some() {}
        }
        self.publish_progress();
        Ok(self.summary())
    }

    /// The bytes that the pull still has to fetch.
    pub(crate) fn missing_bytes(&self) -> u64 {
        let Transfers { context, remaining, .. } = &self.transfers;
        remaining.iter().map(|piece| context.store.missing_bytes(*piece)).sum()
    }

    async fn start_picker(&mut self) {
        let pieces = self.transfers.context.store.manifest().pieces();
        let task = Task {
            pieces: pieces.iter().map(|piece| piece.length).collect(),
            wanted: self.transfers.order.clone(),
            urgent: self.urgent,
            seed: fastrand::u64(..),
        };
        self.scheduler.start(&task).await;
    }

    /// Waits for an event, the end of a backoff or the next measurement. Then handles all queued events.
    async fn wait_for_event(&mut self) -> Result<(), PullError> {
        let measurement = self.meter.next_measurement();
        let wake_at = self.transfers.peers.next_retry().map_or(measurement, |retry| retry.min(measurement));
        let discovered = async {
            match &mut self.discovered {
                Some(discovered) => discovered.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(event) = self.event_rx.recv() => self.on_event(event)?,
            peer = discovered => match peer {
                Some(peer) => self.add_peer(peer, PeerOrigin::Discovery),
                None => self.discovered = None,
            },
            () = sleep_until(wake_at) => {}
        }
        for _ in 0..EVENT_QUEUE_CAPACITY {
            let Ok(event) = self.event_rx.try_recv() else { break };
            self.on_event(event)?;
        }
        Ok(())
    }

    /// Adds `peer` and starts its watcher, unless the peer table has it already or refuses it.
    pub(crate) fn add_peer(&mut self, peer: Peer, origin: PeerOrigin) {
        let manifest = self.transfers.context.store.manifest().clone();
        let Some(peer_index) = self.transfers.peers.add(peer.clone(), origin) else { return };
        let watcher = PeerWatcher {
            peer_index,
            peer,
            user_supplied: self.transfers.peers.entries[peer_index].origin == PeerOrigin::User,
            client: self.transfers.context.client.clone(),
            manifest,
            port: self.transfers.seeding.as_ref().and_then(|seeding| seeding.port),
            encrypted: self.transfers.seeding.as_ref().is_some_and(|seeding| seeding.encrypted),
            event_tx: self.transfers.event_tx.clone(),
        };
        let watcher = self.transfers.tasks.spawn(watcher.run());
        self.transfers.peers.entries[peer_index].watcher = Some(watcher);
    }

    /// Fails when the pull has received too little for too long, or when no peer is left.
    fn check_stalled(&mut self) -> Result<(), PullError> {
        let transfers = &self.transfers;
        let min_bytes = self.limits.effective_min_rate() * self.limits.timeout.as_secs();
        let idle_time = self.meter.idle_time(&transfers.context.counters, min_bytes);
        let has_source =
            transfers.peers.has_active_peer() || self.discovered.is_some() || transfers.in_flight() > 0;
        if has_source && idle_time < self.limits.timeout {
            return Ok(());
        }
        Err(PullError::NoPeer {
            name: transfers.context.store.manifest().name().to_owned(),
            pieces: transfers.remaining.len(),
            bytes: self.missing_bytes(),
            reason: transfers.peers.failure_summary(),
        })
    }

    fn publish_progress(&mut self) {
        let transfers = &self.transfers;
        let (remaining, peers) = (transfers.remaining.len(), transfers.peers.connected());
        self.meter.publish(&transfers.context.counters, remaining, peers, transfers.in_flight());
    }

    /// Handles an event. Fails only when the file cannot be written.
    fn on_event(&mut self, event: PeerEvent) -> Result<(), PullError> {
        match event {
            PeerEvent::Have { peer_index, address, seeder, pieces, in_progress } => {
                let seeder_id = self.transfers.seeding.as_ref().map(|seeding| seeding.seeds.id());
                if seeder_id.is_some() && seeder_id == seeder.as_deref() {
                    self.transfers.close_peer(peer_index, PeerState::Rejected, "it is this machine");
                } else if self.transfers.peers.entries[peer_index].state == PeerState::Active {
                    self.on_have(peer_index, address, [&pieces, &in_progress]);
                }
            }
            PeerEvent::Failed { peer_index, reason, disconnected, abandoned } => {
                tracing::debug!(%reason, disconnected, "a request to a peer failed");
                self.transfers.peers.entries[peer_index].last_error = Some(reason);
                if disconnected {
                    self.transfers.disconnect_peer(peer_index, Fault::Lost);
                }
                let entry = &mut self.transfers.peers.entries[peer_index];
                if abandoned && entry.state == PeerState::Active {
                    entry.state = PeerState::Disconnected;
                }
            }
            PeerEvent::Rejected { peer_index, reason } => {
                self.transfers.close_peer(peer_index, PeerState::Rejected, &reason);
            }
            PeerEvent::Exchanged { peer_index, addresses } => self.on_exchanged(peer_index, &addresses),
            PeerEvent::FetchEnded(fetch, end) => return self.transfers.on_fetch_ended(fetch, end),
        }
        Ok(())
    }

    fn on_have(&mut self, peer_index: usize, address: Address, [have, in_progress]: [&[(u32, u32)]; 2]) {
        if self.transfers.peers.entries[peer_index].id.is_none() && !self.connect_peer(peer_index, address) {
            return;
        }
        self.share_peer(peer_index);
        let entry = &mut self.transfers.peers.entries[peer_index];
        let Some(id) = entry.id else { return };
        let new = mark_pieces(&mut entry.have, have);
        if !new.is_empty() {
            self.transfers.events.push(Event::Have(id, new));
        }
        let mut started = mark_pieces(&mut entry.in_progress, in_progress);
        started.retain(|piece| !entry.have[*piece as usize]);
        if !started.is_empty() {
            self.transfers.events.push(Event::InProgress(id, started));
        }
    }

    /// Connects a peer. False when the pull uses the same machine by another address. Of two addresses, the
    /// one that the user named stays.
    fn connect_peer(&mut self, peer_index: usize, address: Address) -> bool {
        let peers = &mut self.transfers.peers;
        let pieces = self.transfers.context.store.manifest().pieces().len();
        if let Some(other) = peers.duplicate_of(peer_index, address) {
            let is_named = |index: usize| peers.entries[index].origin == PeerOrigin::User;
            let closed = if is_named(peer_index) && !is_named(other) { other } else { peer_index };
            let reason = "this pull uses the same machine by another address";
            self.transfers.close_peer(closed, PeerState::Rejected, reason);
            if closed == peer_index {
                return false;
            }
        }
        let peers = &mut self.transfers.peers;
        peers.entries[peer_index].address = address;
        let id = peers.connect(peer_index, pieces);
        self.transfers.events.push(Event::Joined(id));
        true
    }

    /// Adds the told peers that the teller may know.
    fn on_exchanged(&mut self, teller_index: usize, addresses: &[String]) {
        let Some(teller) = self.transfers.peers.entries[teller_index].address else { return };
        let teller = teller.ip().to_canonical();
        let told = addresses.iter().take(MAX_ADDRESSES_PER_EXCHANGE);
        for peer in told.filter_map(|address| exchange::accept(address, teller)) {
            self.add_peer(peer, PeerOrigin::Exchange(teller));
        }
    }

    /// Adds the peer to the peers that this machine's own seeder reports in peer exchange.
    fn share_peer(&self, peer_index: usize) {
        let PeerEntry { peer, address, .. } = &self.transfers.peers.entries[peer_index];
        if let (Some(seeding), Peer::Seeder(url), Some(address)) = (&self.transfers.seeding, peer, address)
            && matches!(url.path(), "" | "/")
        {
            seeding.seeds.add_peer(self.transfers.context.root, *address, peer.is_encrypted());
        }
    }

    fn summary(&mut self) -> PullSummary {
        let counters = &self.transfers.context.counters;
        let received_bytes = PullCounters::get(&counters.received_bytes);
        let kept_bytes = PullCounters::get(&counters.kept_bytes);
        let entries = self.transfers.peers.entries.iter();
        let banned = entries.clone().filter(|entry| entry.state == PeerState::Banned);
        let by_peer = entries.map(|entry| (entry.peer.clone(), PullCounters::get(&entry.counters.peer)));
        PullSummary {
            kept_bytes,
            bytes_by_peer: by_peer.filter(|(_, bytes)| *bytes > 0).collect(),
            wasted_bytes: received_bytes.saturating_sub(kept_bytes),
            corrupt_blocks: PullCounters::get(&counters.corrupt_blocks),
            duplicate_blocks: PullCounters::get(&counters.duplicate_blocks),
            banned_peers: banned.map(|entry| entry.peer.clone()).collect(),
            picker_error: self.scheduler.picker_error.take(),
            picker_timeouts: self.scheduler.picker_timeouts,
            elapsed: self.scheduler.elapsed(),
        }
    }
}

/// Marks runs of pieces in `pieces`. Returns the newly marked pieces.
fn mark_pieces(pieces: &mut [bool], runs: &[(u32, u32)]) -> Vec<u32> {
    let mut new = Vec::new();
    for &(from, to) in runs {
        // The iteration over `pieces` bounds untrusted runs by the number of pieces.
        for (piece, marked) in pieces.iter_mut().enumerate().take(to as usize).skip(from as usize) {
            if !std::mem::replace(marked, true) {
                new.extend(u32::try_from(piece));
            }
        }
    }
    new
}
