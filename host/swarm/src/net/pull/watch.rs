//! Watches one peer: asks for its pieces by long polls, and exchanges peers with it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tightwad_core::Backoff;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::disk::digest::Digest;
use crate::disk::manifest::Manifest;
use crate::net::client::{Client, RequestError};
use crate::net::peer::Peer;
use crate::net::pull::event::PeerEvent;
use crate::net::wire::Announce;

/// Longest time that a peer may hold a long poll.
const LONG_POLL_TIME: Duration = Duration::from_secs(25);
/// Shortest time between two polls. The peer then reports pieces that complete in quick succession together.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// First interval between two peer exchanges. Each exchange doubles the interval. A short first interval lets
/// peers that start together find each other quickly.
const FIRST_EXCHANGE_INTERVAL: Duration = Duration::from_millis(250);
/// Longest interval between two peer exchanges.
const MAX_EXCHANGE_INTERVAL: Duration = Duration::from_secs(15);
/// Consecutive failures after which a peer counts as disconnected.
const MAX_FAILURES: u32 = 5;
/// Backoff of a peer whose poll failed.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// Watches one peer for one pull.
pub(crate) struct PeerWatcher {
    pub(crate) peer_index: usize,
    pub(crate) peer: Peer,
    /// Whether the user named the peer. Such a peer is asked again even when it counts as disconnected.
    pub(crate) user_supplied: bool,
    pub(crate) client: Client,
    pub(crate) manifest: Arc<Manifest>,
    /// The port of this machine's seeder.
    pub(crate) port: Option<u16>,
    /// Whether that seeder is encrypted.
    pub(crate) encrypted: bool,
    pub(crate) event_tx: mpsc::Sender<PeerEvent>,
}

impl PeerWatcher {
    pub(crate) async fn run(self) {
        match &self.peer {
            // The exchange ends with the polling.
            Peer::Seeder(_) => tokio::select! {
                () = self.poll_have() => {}
                () = self.exchange_peers() => {}
            },
            Peer::WebSeed(_) => self.probe_web_seed().await,
        }
    }

    async fn poll_have(&self) {
        let (mut since, mut failures) = (None, 0);
        loop {
            let started = Instant::now();
            let wanted = (self.root(), self.piece_count());
            let reply = self.client.have(&self.peer, wanted, since, LONG_POLL_TIME).await;
            match reply {
                Ok((have, address)) => {
                    (since, failures) = (Some(have.version), 0);
                    let event = PeerEvent::Have {
                        peer_index: self.peer_index,
                        address,
                        seeder: Some(have.seeder),
                        pieces: have.pieces,
                        in_progress: have.in_progress,
                    };
                    if self.event_tx.send(event).await.is_err() {
                        return;
                    }
                    sleep_until(started + MIN_POLL_INTERVAL).await;
                }
                Err(error) => {
                    since = None;
                    if self.on_error(error, &mut failures).await.is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// Checks the size of a web seed's file. A file of the manifest's size has all pieces.
    async fn probe_web_seed(&self) {
        let mut failures = 0;
        let peer_index = self.peer_index;
        loop {
            match self.client.file_size(&self.peer, self.root()).await {
                Ok(size) if size == self.manifest.size() => {
                    let (pieces, in_progress) = (vec![(0, self.piece_count())], Vec::new());
                    let event =
                        PeerEvent::Have { peer_index, address: None, seeder: None, pieces, in_progress };
                    let _ = self.event_tx.send(event).await;
                    return;
                }
                Ok(size) => {
                    let expected = self.manifest.size();
                    let reason =
                        format!("{} has {size} bytes, not {expected}: it is another file", self.peer);
                    let _ = self.event_tx.send(PeerEvent::Rejected { peer_index, reason }).await;
                    return;
                }
                Err(error) => {
                    if self.on_error(error, &mut failures).await.is_break() {
                        return;
                    }
                }
            }
        }
    }

    async fn on_error(&self, error: RequestError, failures: &mut u32) -> ControlFlow<()> {
        *failures += 1;
        let (peer_index, reason) = (self.peer_index, error.to_string());
        // An invalid reply of a web server is permanent, such as missing support for range requests.
        let is_permanent =
            matches!(error, RequestError::InvalidReply(..)) && matches!(self.peer, Peer::WebSeed(_));
        let is_refused = matches!(
            error,
            RequestError::AccessDenied(..)
                | RequestError::TokenWithheld(_)
                | RequestError::Untrusted(..)
                | RequestError::NotEncrypted(_)
        );
        if is_permanent || is_refused {
            let _ = self.event_tx.send(PeerEvent::Rejected { peer_index, reason }).await;
            return ControlFlow::Break(());
        }
        let disconnected = *failures >= MAX_FAILURES;
        let abandoned = disconnected && !self.user_supplied;
        let event = PeerEvent::Failed { peer_index, reason, disconnected, abandoned };
        if self.event_tx.send(event).await.is_err() || abandoned {
            return ControlFlow::Break(());
        }
        sleep(BACKOFF.jittered_delay(failures.saturating_sub(1))).await;
        ControlFlow::Continue(())
    }

    async fn exchange_peers(&self) {
        let announce = Announce { port: self.port, encrypted: self.encrypted };
        let mut interval = FIRST_EXCHANGE_INTERVAL;
        loop {
            // Errors are ignored here: `poll_have` meets and reports them too.
            if let Ok(list) = self.client.exchange_peers(&self.peer, self.root(), &announce).await {
                let event = PeerEvent::Exchanged { peer_index: self.peer_index, addresses: list.peers };
                if self.event_tx.send(event).await.is_err() {
                    return;
                }
            }
            sleep(interval).await;
            interval = (2 * interval).min(MAX_EXCHANGE_INTERVAL);
        }
    }

    fn piece_count(&self) -> u32 {
        u32::try_from(self.manifest.pieces().len()).unwrap_or(u32::MAX)
    }

    fn root(&self) -> Digest {
        self.manifest.root()
    }
}
