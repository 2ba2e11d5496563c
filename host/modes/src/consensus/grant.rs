//! The permission of an approximate mode to commit tokens without the target, with the results of audits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tightwad_core::sync;

use crate::consensus::policy_handle::RequestPolicy;

/// The agreement of accepted tokens with the target: the results of audits.
#[derive(Debug, Default)]
pub struct Agreement {
    audited: AtomicU64,
    agreed: AtomicU64,
    /// The audited and agreed tokens of stale audits. In a stale audit, another rule than the active one accepted the
    /// tokens.
    stale: (AtomicU64, AtomicU64),
}

impl Agreement {
    /// Records one audit. The audit is `stale` if another rule than the active one accepted its tokens.
    pub fn record(&self, audited: u64, agreed: u64, stale: bool) {
        if stale {
            self.stale.0.fetch_add(audited, Ordering::AcqRel);
            self.stale.1.fetch_add(agreed, Ordering::AcqRel);
        }
        // Readers load in the opposite order, so they never see more agreed than audited tokens.
        self.audited.fetch_add(audited, Ordering::AcqRel);
        self.agreed.fetch_add(agreed, Ordering::AcqRel);
    }

    /// The number of audited tokens, and the number of audited tokens that the target would have chosen.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let agreed = self.agreed.load(Ordering::Acquire);
        (self.audited.load(Ordering::Acquire), agreed)
    }

    /// The same counts without stale audits.
    #[must_use]
    pub fn fresh_counts(&self) -> (u64, u64) {
        let stale = (self.stale.0.load(Ordering::Acquire), self.stale.1.load(Ordering::Acquire));
        let (audited, agreed) = self.counts();
        let audited = audited.saturating_sub(stale.0);
        (audited, agreed.saturating_sub(stale.1).min(audited))
    }

    /// The share of audited tokens that the target would have chosen. `None` before the first audit.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let (audited, agreed) = self.counts();
        (audited > 0).then(|| agreed as f64 / audited as f64)
    }
}

/// The name of the rule that the mode reported last.
#[derive(Debug, Default)]
pub struct ActiveRule(Mutex<String>);

impl ActiveRule {
    /// The rule's name. Empty before the first report.
    #[must_use]
    pub fn name(&self) -> String {
        sync::lock(&self.0).clone()
    }

    /// Sets the name. Returns true if it replaced another name.
    pub(crate) fn set(&self, rule: String) -> bool {
        let mut name = sync::lock(&self.0);
        let changed = !name.is_empty() && *name != rule;
        *name = rule;
        changed
    }
}

/// The permission of one request to commit unverified tokens, with its policy.
#[derive(Clone)]
pub struct UnverifiedGrant {
    /// False for a request with log-probabilities: only the target has them.
    pub allowed: bool,
    /// The results of audits, of all requests.
    pub agreement: Arc<Agreement>,
    /// The active rule, of all requests.
    pub rule: Arc<ActiveRule>,
    /// The rule that this request's driver reported last.
    pub request_rule: String,
    /// The policy that the script named, as of the start of the request.
    pub policy: Option<RequestPolicy>,
}
