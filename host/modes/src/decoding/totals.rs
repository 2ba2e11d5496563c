//! What a mode did, over all requests, for metrics.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tightwad_core::sync;

use crate::decoding::job::Tally;
use crate::decoding::seat::Raced;

/// Sums over all requests.
#[derive(Debug, Default)]
pub struct Totals {
    /// Verifications of at least one proposal.
    pub rounds: AtomicU64,
    /// Continuations that were verified in them: more than `rounds` where trees were.
    pub paths: AtomicU64,
    /// Proposals verified.
    pub drafted: AtomicU64,
    /// Proposals committed.
    pub accepted: AtomicU64,
    /// Proposals that were never verified.
    pub wasted: AtomicU64,
    /// Times that tokens were committed without the target.
    pub skips: AtomicU64,
    /// Tokens committed without the target.
    pub unverified: AtomicU64,
    /// Stretches of plain decoding.
    pub decodes: AtomicU64,
    /// Requests finished by plain decoding because the plugin failed.
    pub fallbacks: AtomicU64,
    races: Mutex<BTreeMap<String, Raced>>,
}

impl Totals {
    pub(crate) fn add(&self, tally: &Tally, fallback: bool) {
        for (sum, value) in [
            (&self.rounds, tally.rounds),
            (&self.paths, tally.paths),
            (&self.drafted, tally.drafted),
            (&self.accepted, tally.accepted),
            (&self.wasted, tally.wasted),
            (&self.skips, tally.skips),
            (&self.unverified, tally.unverified),
            (&self.decodes, tally.decodes),
            (&self.fallbacks, u32::from(fallback)),
        ] {
            sum.fetch_add(u64::from(value), Ordering::Relaxed);
        }
    }

    pub(crate) fn races(&self, raced: Vec<(String, Raced)>) {
        let mut races = sync::lock(&self.races);
        for (drafter, raced) in raced {
            races.entry(drafter).or_default().add(&raced);
        }
    }

    /// How every drafter did in races, by its name.
    #[must_use]
    pub fn raced(&self) -> BTreeMap<String, Raced> {
        sync::lock(&self.races).clone()
    }
}
