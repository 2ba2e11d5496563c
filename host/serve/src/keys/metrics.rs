//! Metrics by key. The label `key` has the names in the script, so its values are few.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::keys::refusal::Refusal;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KeyLabel {
    key: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusalLabels {
    key: String,
    reason: &'static str,
}

/// Metrics by key. Clones share the counts.
#[derive(Clone, Default)]
pub(crate) struct KeyMetrics {
    requests: Family<KeyLabel, Counter>,
    tokens: Family<KeyLabel, Counter>,
    refusals: Family<RefusalLabels, Counter>,
}

impl KeyMetrics {
    /// Counts an accepted request.
    pub(crate) fn count_request(&self, key: &str) {
        self.requests.get_or_create(&KeyLabel { key: key.to_owned() }).inc();
    }

    /// Counts the tokens of a request.
    pub(crate) fn count_tokens(&self, key: &str, tokens: u64) {
        self.tokens.get_or_create(&KeyLabel { key: key.to_owned() }).inc_by(tokens);
    }

    /// Counts a refused request. A request without a valid key has the empty name.
    pub(crate) fn count_refusal(&self, key: &str, refusal: &Refusal) {
        let labels = RefusalLabels { key: key.to_owned(), reason: refusal.label() };
        self.refusals.get_or_create(&labels).inc();
    }

    /// The accepted requests.
    pub(crate) fn requests(&self) -> impl prometheus_client::registry::Metric + use<> {
        self.requests.clone()
    }

    /// The tokens.
    pub(crate) fn tokens(&self) -> impl prometheus_client::registry::Metric + use<> {
        self.tokens.clone()
    }

    /// The refused requests.
    pub(crate) fn refusals(&self) -> impl prometheus_client::registry::Metric + use<> {
        self.refusals.clone()
    }
}
