//! The totals of a mode over all requests, for metrics.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tightwad_core::sync;

use crate::decoding::drafter_slot::RaceStats;
use crate::decoding::job::Tally;

/// The totals of all requests.
#[derive(Debug, Default)]
pub struct Totals {
    /// Verifications of at least one proposal.
    pub rounds: AtomicU64,
    /// Paths of all verifications. More than `rounds` if drafts were trees.
    pub paths: AtomicU64,
    /// Verified proposals.
    pub drafted: AtomicU64,
    /// Proposals that the target committed.
    pub accepted: AtomicU64,
    /// Proposals that were neither verified nor committed.
    pub wasted: AtomicU64,
    /// Calls that committed tokens without the target.
    pub skips: AtomicU64,
    /// Tokens committed without the target.
    pub unverified: AtomicU64,
    /// Calls of plain decoding.
    pub decodes: AtomicU64,
    /// Requests that plain decoding completed because the driver failed.
    pub fallbacks: AtomicU64,
    races: Mutex<BTreeMap<String, RaceStats>>,
}

impl Totals {
    pub(crate) fn add(&self, tally: &Tally, fallback: bool) {
        for (total, value) in [
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
            total.fetch_add(u64::from(value), Ordering::Relaxed);
        }
    }

    /// Adds each drafter's results in races.
    pub(crate) fn add_races(&self, results: Vec<(String, RaceStats)>) {
        let mut races = sync::lock(&self.races);
        for (drafter, stats) in results {
            races.entry(drafter).or_default().add(&stats);
        }
    }

    /// Each drafter's results in races, by the drafter's name.
    #[must_use]
    pub fn race_stats(&self) -> BTreeMap<String, RaceStats> {
        sync::lock(&self.races).clone()
    }
}
