//! Prometheus metrics.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tightwad_core::{Outcome, sync};

use crate::keys::key::Key;
use crate::keys::metrics::KeyMetrics;
use crate::model_table::ServedModels;
use crate::token_count::TokenCount;

/// Metrics of other parts of the host, collected when a client reads `/metrics`.
pub use prometheus_client::collector::Collector;

/// The status of a request whose client disconnected, as in nginx.
const CLIENT_DISCONNECTED_STATUS: u16 = 499;

/// A metric of the endpoint.
#[derive(Debug)]
pub struct MetricDescription {
    /// Name without the prefix `tightwad_`, and without the suffix `_total` of counters.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Meaning and labels.
    pub help: &'static str,
}

const REQUESTS: MetricDescription = MetricDescription {
    name: "requests",
    kind: "counter",
    help: "Requests, by `model` and `status` (HTTP; 499: the client disconnected). `model` is empty if the request names no served model",
};
const TOKENS: MetricDescription = MetricDescription {
    name: "tokens",
    kind: "counter",
    help: "Tokens, by `model` and `kind`: prompt, cached, completion, drafted, accepted",
};
const IN_FLIGHT: MetricDescription =
    MetricDescription { name: "requests_in_flight", kind: "gauge", help: "Requests in progress" };
const TIME_TO_FIRST_TOKEN: MetricDescription = MetricDescription {
    name: "time_to_first_token_seconds",
    kind: "histogram",
    help: "Time until the first text of an answer, by `model`",
};
const REQUEST_DURATION: MetricDescription = MetricDescription {
    name: "request_duration_seconds",
    kind: "histogram",
    help: "Time of a request, by `model`",
};

const KEY_REQUESTS: MetricDescription = MetricDescription {
    name: "key_requests",
    kind: "counter",
    help: "Accepted requests of every path, by API `key`",
};
const KEY_TOKENS: MetricDescription = MetricDescription {
    name: "key_tokens",
    kind: "counter",
    help: "Prompt and completion tokens, also of cancelled requests, by API `key`",
};
const KEY_REFUSALS: MetricDescription = MetricDescription {
    name: "key_refusals",
    kind: "counter",
    help: "Refused requests, by API `key` (empty without a valid key) and `reason`: missing_key, invalid_key, expired, rights, requests_per_minute, tokens_per_day",
};
const MODEL_UP: MetricDescription = MetricDescription {
    name: "model_up",
    kind: "gauge",
    help: "1 while the model answers, otherwise 0, by `model`",
};

/// The metrics of the endpoint.
pub const ENDPOINT_METRICS: [&MetricDescription; 9] = [
    &REQUESTS,
    &TOKENS,
    &IN_FLIGHT,
    &TIME_TO_FIRST_TOKEN,
    &REQUEST_DURATION,
    &KEY_REQUESTS,
    &KEY_TOKENS,
    &KEY_REFUSALS,
    &MODEL_UP,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    model: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TokenLabels {
    model: String,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

/// The metrics of the endpoint.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    in_flight: Gauge,
    time_to_first_token: Family<ModelLabel, Histogram>,
    request_time: Family<ModelLabel, Histogram>,
    keys: KeyMetrics,
    model_up: Family<ModelLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tightwad");
        let histogram = || Histogram::new(exponential_buckets(0.01, 2.0, 15));
        let metrics = Self {
            registry: Mutex::default(),
            requests: Family::default(),
            tokens: Family::default(),
            in_flight: Gauge::default(),
            time_to_first_token: Family::new_with_constructor(histogram),
            request_time: Family::new_with_constructor(histogram),
            keys: KeyMetrics::default(),
            model_up: Family::default(),
        };
        registry.register(MODEL_UP.name, MODEL_UP.help, metrics.model_up.clone());
        registry.register(REQUESTS.name, REQUESTS.help, metrics.requests.clone());
        registry.register(TOKENS.name, TOKENS.help, metrics.tokens.clone());
        registry.register(IN_FLIGHT.name, IN_FLIGHT.help, metrics.in_flight.clone());
        let family = metrics.time_to_first_token.clone();
        registry.register(TIME_TO_FIRST_TOKEN.name, TIME_TO_FIRST_TOKEN.help, family);
        registry.register(REQUEST_DURATION.name, REQUEST_DURATION.help, metrics.request_time.clone());
        registry.register(KEY_REQUESTS.name, KEY_REQUESTS.help, metrics.keys.requests());
        registry.register(KEY_TOKENS.name, KEY_TOKENS.help, metrics.keys.tokens());
        registry.register(KEY_REFUSALS.name, KEY_REFUSALS.help, metrics.keys.refusals());
        Self { registry: Mutex::new(registry), ..metrics }
    }
}

impl Metrics {
    /// Adds the metrics of another part of the host.
    pub fn register(&self, collector: Box<dyn Collector>) {
        sync::lock(&self.registry).register_collector(collector);
    }

    /// The metrics by API key.
    pub(crate) fn keys(&self) -> &KeyMetrics {
        &self.keys
    }

    /// All metrics, with the health of `models`, in the text format of OpenMetrics.
    pub(crate) fn exposition(&self, models: &ServedModels) -> String {
        // A reload may have removed models.
        self.model_up.clear();
        for (model, backend) in models.iter() {
            let label = ModelLabel { model: model.to_owned() };
            self.model_up.get_or_create(&label).set(i64::from(backend.health().is_ready()));
        }
        let mut text = String::new();
        let registry = sync::lock(&self.registry);
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    /// Starts the measurement of one request.
    pub(crate) fn start_request(self: &Arc<Self>) -> RequestMeasurement {
        self.in_flight.inc();
        RequestMeasurement {
            metrics: self.clone(),
            model: String::new(),
            start: Instant::now(),
            time_to_first_text: None,
            tokens: TokenCount::default(),
            key: None,
            finished: false,
        }
    }

    fn add_tokens(&self, model: &str, kind: &'static str, count: u32) {
        if count > 0 {
            let labels = TokenLabels { model: model.to_owned(), kind };
            self.tokens.get_or_create(&labels).inc_by(u64::from(count));
        }
    }
}

/// The measurement of one request, which ends exactly once: with its status, or when it is dropped because the client
/// disconnected.
pub(crate) struct RequestMeasurement {
    metrics: Arc<Metrics>,
    /// Empty until the request has named a served model. Other names would fill the memory for metrics.
    model: String,
    start: Instant,
    time_to_first_text: Option<Duration>,
    tokens: TokenCount,
    /// The key that pays for the tokens.
    key: Option<Arc<Key>>,
    finished: bool,
}

impl RequestMeasurement {
    /// Names the model, which the server serves.
    pub(crate) fn set_model(&mut self, model: &str) {
        model.clone_into(&mut self.model);
    }

    /// Measures the tokens of the choices in `tokens`, which `key` pays for.
    pub(crate) fn start_choices(&mut self, tokens: TokenCount, key: Option<Arc<Key>>) {
        (self.tokens, self.key) = (tokens, key);
    }

    /// Counts an event of a choice.
    pub(crate) fn record_event(&mut self, choice: usize) {
        self.time_to_first_text.get_or_insert_with(|| self.start.elapsed());
        self.tokens.count_event(choice);
    }

    /// Counts the tokens of a finished choice.
    pub(crate) fn record_outcome(&mut self, choice: usize, outcome: &Outcome) {
        for (kind, count) in [
            ("prompt", outcome.usage.prompt_tokens),
            ("cached", outcome.usage.cached_tokens),
            ("completion", outcome.usage.completion_tokens),
            ("drafted", outcome.report.drafted),
            ("accepted", outcome.report.accepted),
        ] {
            self.metrics.add_tokens(&self.model, kind, count);
        }
        self.tokens.finish_choice(choice, outcome.usage);
    }

    /// Ends the request with its HTTP status: counts it, its times, and the tokens of choices that did not finish, and
    /// charges the key. Later calls have no effect.
    pub(crate) fn finish(&mut self, status: u16) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let metrics = &self.metrics;
        metrics.in_flight.dec();
        for usage in self.tokens.unfinished() {
            metrics.add_tokens(&self.model, "prompt", usage.prompt_tokens);
            metrics.add_tokens(&self.model, "completion", usage.completion_tokens);
        }
        if let Some(key) = &self.key {
            let tokens = self.tokens.charged_tokens();
            key.charge(tokens);
            metrics.keys.count_tokens(key.name(), tokens);
        }
        let labels = RequestLabels { model: self.model.clone(), status };
        metrics.requests.get_or_create(&labels).inc();
        if self.model.is_empty() {
            return;
        }
        let label = ModelLabel { model: self.model.clone() };
        metrics.request_time.get_or_create(&label).observe(self.start.elapsed().as_secs_f64());
        if let Some(time_to_first_text) = self.time_to_first_text {
            metrics.time_to_first_token.get_or_create(&label).observe(time_to_first_text.as_secs_f64());
        }
    }
}

impl Drop for RequestMeasurement {
    fn drop(&mut self) {
        self.finish(CLIENT_DISCONNECTED_STATUS);
    }
}
