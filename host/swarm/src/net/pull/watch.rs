//! Watching one peer: what it has, as soon as it has it, and whom it knows.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tightwad_core::Backoff;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::disk::digest::Digest;
use crate::disk::manifest::Manifest;
use crate::net::client::{AskError, Client};
use crate::net::peer::Peer;
use crate::net::pull::event::PeerEvent;
use crate::net::wire::Announce;

/// How long a peer may keep a question for news.
const WAIT: Duration = Duration::from_secs(25);
/// Shortest time between two questions: pieces that come quickly are told together.
const BETWEEN: Duration = Duration::from_millis(50);
/// How often peers are asked for others, ...
const EXCHANGE: Duration = Duration::from_secs(15);
/// ... and how soon the second time: those who begin together should not wait to hear of one another. Doubled
/// each time.
const SOON: Duration = Duration::from_millis(250);
/// Failures in a row after which a peer counts as gone.
pub(crate) const FAILURES: u32 = 5;
/// How long a peer that failed is not asked.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// Watches one peer for one pull.
pub(crate) struct Watcher {
    pub(crate) source: usize,
    pub(crate) peer: Peer,
    /// Given by the user: it is asked again even when it is gone.
    pub(crate) given: bool,
    pub(crate) client: Client,
    pub(crate) manifest: Arc<Manifest>,
    /// Where this machine seeds.
    pub(crate) port: Option<u16>,
    pub(crate) events: mpsc::Sender<PeerEvent>,
}

impl Watcher {
    pub(crate) async fn run(self) {
        match &self.peer {
            // The exchange goes on for as long as the peer is watched.
            Peer::Seeder(_) => tokio::select! {
                () = self.having() => {}
                () = self.exchange() => {}
            },
            Peer::File(_) => self.probe().await,
        }
    }

    async fn having(&self) {
        let (mut since, mut failures) = (None, 0);
        loop {
            let asked = Instant::now();
            let answer = self.client.have(&self.peer, self.root(), since, WAIT).await;
            match answer {
                Ok((have, address)) => {
                    (since, failures) = (Some(have.version), 0);
                    let told = PeerEvent::Have {
                        source: self.source,
                        address,
                        seeder: Some(have.seeder),
                        pieces: have.pieces,
                        coming: have.coming,
                    };
                    if self.events.send(told).await.is_err() {
                        return;
                    }
                    sleep_until(asked + BETWEEN).await;
                }
                Err(error) => {
                    since = None;
                    if self.failed(error, &mut failures).await.is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// A file on a web server has everything, when it is the right length.
    async fn probe(&self) {
        let mut failures = 0;
        loop {
            match self.client.length(&self.peer, self.root()).await {
                Ok(length) if length == self.manifest.size() => {
                    let all = u32::try_from(self.manifest.pieces().len()).unwrap_or(u32::MAX);
                    let (source, pieces) = (self.source, vec![(0, all)]);
                    let told =
                        PeerEvent::Have { source, address: None, seeder: None, pieces, coming: Vec::new() };
                    let _ = self.events.send(told).await;
                    return;
                }
                Ok(length) => {
                    let expected = self.manifest.size();
                    let why = format!("{} has {length} bytes, not {expected}: it is another file", self.peer);
                    let _ = self.events.send(PeerEvent::Shut { source: self.source, why }).await;
                    return;
                }
                Err(error) => {
                    if self.failed(error, &mut failures).await.is_break() {
                        return;
                    }
                }
            }
        }
    }

    async fn failed(&self, error: AskError, failures: &mut u32) -> ControlFlow<()> {
        *failures += 1;
        let (source, why) = (self.source, error.to_string());
        // A web server that does not know ranges will not learn them.
        let hopeless = matches!(error, AskError::Nonsense(..)) && matches!(self.peer, Peer::File(_));
        if hopeless || matches!(error, AskError::Shut(..)) {
            let _ = self.events.send(PeerEvent::Shut { source, why }).await;
            return ControlFlow::Break(());
        }
        let gone = *failures >= FAILURES;
        let told = PeerEvent::Silent { source, why, gone, over: gone && !self.given };
        if self.events.send(told).await.is_err() || (gone && !self.given) {
            return ControlFlow::Break(());
        }
        sleep(BACKOFF.jittered(failures.saturating_sub(1))).await;
        ControlFlow::Continue(())
    }

    async fn exchange(&self) {
        let announce = Announce { port: self.port };
        let mut pause = SOON;
        loop {
            // What fails here fails in `having` too, which says so.
            if let Ok(known) = self.client.exchange(&self.peer, self.root(), &announce).await
                && self.events.send(PeerEvent::Learned(known.peers)).await.is_err()
            {
                return;
            }
            sleep(pause).await;
            pause = (2 * pause).min(EXCHANGE);
        }
    }

    fn root(&self) -> Digest {
        self.manifest.root()
    }
}
