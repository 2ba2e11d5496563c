//! Watching one peer: what it has, as soon as it has it, and whom it knows.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::drive::Told;
use crate::disk::{Digest, Manifest};
use crate::net::client::{AskError, Client};
use crate::net::peer::Peer;
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
pub(super) const FAILURES: u32 = 5;
/// The pause after the first failure; it doubles with each.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(10);

/// The `n`-th pause in a row, shorter by chance, so that not all ask at the same time.
pub(super) fn pause(n: u32, longest: Duration) -> Duration {
    let full = PAUSE.saturating_mul(1 << n.saturating_sub(1).min(10)).min(longest);
    full.mul_f64(0.75 + 0.25 * fastrand::f64())
}

/// Watches one peer for one pull.
pub(super) struct Watcher {
    pub(super) source: usize,
    pub(super) peer: Peer,
    /// Given by the user: it is asked again even when it is gone.
    pub(super) given: bool,
    pub(super) client: Client,
    pub(super) manifest: Arc<Manifest>,
    /// Where this machine seeds.
    pub(super) port: Option<u16>,
    pub(super) told: mpsc::Sender<Told>,
}

impl Watcher {
    pub(super) async fn run(self) {
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
                    let told = Told::Have {
                        source: self.source,
                        address,
                        seeder: Some(have.seeder),
                        pieces: have.pieces,
                        coming: have.coming,
                    };
                    if self.told.send(told).await.is_err() {
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
                    let told = Told::Have { source, address: None, seeder: None, pieces, coming: Vec::new() };
                    let _ = self.told.send(told).await;
                    return;
                }
                Ok(length) => {
                    let expected = self.manifest.size();
                    let why = format!("{} has {length} bytes, not {expected}: it is another file", self.peer);
                    let _ = self.told.send(Told::Shut { source: self.source, why }).await;
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
            let _ = self.told.send(Told::Shut { source, why }).await;
            return ControlFlow::Break(());
        }
        let gone = *failures >= FAILURES;
        let told = Told::Silent { source, why, gone, over: gone && !self.given };
        if self.told.send(told).await.is_err() || (gone && !self.given) {
            return ControlFlow::Break(());
        }
        sleep(pause(*failures, LONGEST)).await;
        ControlFlow::Continue(())
    }

    async fn exchange(&self) {
        let announce = Announce { port: self.port };
        let mut pause = SOON;
        loop {
            // What fails here fails in `having` too, which says so.
            if let Ok(known) = self.client.exchange(&self.peer, self.root(), &announce).await
                && self.told.send(Told::Learned(known.peers)).await.is_err()
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

/// Where a peer answers from.
pub(super) type Address = Option<SocketAddr>;
