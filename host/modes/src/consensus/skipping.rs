//! What an approximate mode may do besides: commit tokens without the target, and ask a policy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tightwad_core::sync;

use crate::consensus::at_work::PolicyOfRequest;

/// How often the target, asked afterwards, would have chosen what was accepted.
#[derive(Debug, Default)]
pub struct Agreement {
    audited: AtomicU64,
    agreed: AtomicU64,
    /// Those of them that came too late to say something about the rule at work.
    stale: (AtomicU64, AtomicU64),
}

impl Agreement {
    /// Notes one audit. `stale`: of what was accepted under another rule than the one at work.
    pub fn note(&self, audited: u64, agreed: u64, stale: bool) {
        if stale {
            self.stale.0.fetch_add(audited, Ordering::AcqRel);
            self.stale.1.fetch_add(agreed, Ordering::AcqRel);
        }
        // Read in the other order, so that nobody sees more agreed than audited.
        self.audited.fetch_add(audited, Ordering::AcqRel);
        self.agreed.fetch_add(agreed, Ordering::AcqRel);
    }

    /// Tokens looked at, and those that the target would have chosen.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let agreed = self.agreed.load(Ordering::Acquire);
        (self.audited.load(Ordering::Acquire), agreed)
    }

    /// The same of audits that were not stale when they came.
    #[must_use]
    pub fn current(&self) -> (u64, u64) {
        let stale = (self.stale.0.load(Ordering::Acquire), self.stale.1.load(Ordering::Acquire));
        let (audited, agreed) = self.counts();
        let audited = audited.saturating_sub(stale.0);
        (audited, agreed.saturating_sub(stale.1).min(audited))
    }

    /// The share that the target would have chosen; `None` before the first audit.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let (audited, agreed) = self.counts();
        (audited > 0).then(|| agreed as f64 / audited as f64)
    }
}

/// The rule that a mode says is at work.
#[derive(Debug, Default)]
pub struct RuleAtWork(Mutex<String>);

impl RuleAtWork {
    /// Its name; empty before the mode has said one.
    #[must_use]
    pub fn name(&self) -> String {
        sync::lock(&self.0).clone()
    }

    /// True when it is another one than before.
    pub(crate) fn set(&self, rule: String) -> bool {
        let mut own = sync::lock(&self.0);
        let changed = !own.is_empty() && *own != rule;
        *own = rule;
        changed
    }
}

/// What one request of an approximate mode is given.
#[derive(Clone)]
pub struct Skipping {
    /// The request allows it: log-probabilities are the target's alone.
    pub allowed: bool,
    /// What audits have shown.
    pub agreement: Arc<Agreement>,
    /// The rule at work.
    pub rule: Arc<RuleAtWork>,
    /// The rule that this request's mode said last.
    pub own_rule: String,
    /// The policy that the script named, as it was when the request began.
    pub policy: Option<PolicyOfRequest>,
}
