//! Prometheus metrics.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tightwad_core::{Outcome, sync};

/// Metrics of other parts of the host, collected when a client reads `/metrics`.
pub use prometheus_client::collector::Collector;

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
    help: "Answered requests, by `model` and `status` (HTTP)",
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

/// The metrics of the endpoint.
pub const ENDPOINT_METRICS: [&MetricDescription; 5] =
    [&REQUESTS, &TOKENS, &IN_FLIGHT, &TIME_TO_FIRST_TOKEN, &REQUEST_DURATION];

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
        };
        registry.register(REQUESTS.name, REQUESTS.help, metrics.requests.clone());
        registry.register(TOKENS.name, TOKENS.help, metrics.tokens.clone());
        registry.register(IN_FLIGHT.name, IN_FLIGHT.help, metrics.in_flight.clone());
        let family = metrics.time_to_first_token.clone();
        registry.register(TIME_TO_FIRST_TOKEN.name, TIME_TO_FIRST_TOKEN.help, family);
        registry.register(REQUEST_DURATION.name, REQUEST_DURATION.help, metrics.request_time.clone());
        Self { registry: Mutex::new(registry), ..metrics }
    }
}

impl Metrics {
    /// Adds the metrics of another part of the host.
    pub fn register(&self, collector: Box<dyn Collector>) {
        sync::lock(&self.registry).register_collector(collector);
    }

    /// All metrics, in the text format of OpenMetrics.
    pub(crate) fn exposition(&self) -> String {
        let mut text = String::new();
        let registry = sync::lock(&self.registry);
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    /// Starts the measurement of one request.
    pub(crate) fn start_request(&self, model: &str) -> RequestMeasurement {
        self.in_flight.inc();
        RequestMeasurement {
            model: model.to_owned(),
            start: Instant::now(),
            time_to_first_text: None,
            in_flight: self.in_flight.clone(),
        }
    }

    /// Counts a request by its HTTP status and records its times.
    pub(crate) fn finish_request(&self, measurement: &RequestMeasurement, status: u16) {
        let model = measurement.model.clone();
        self.requests.get_or_create(&RequestLabels { model: model.clone(), status }).inc();
        let label = ModelLabel { model };
        self.request_time.get_or_create(&label).observe(measurement.start.elapsed().as_secs_f64());
        if let Some(time_to_first_text) = measurement.time_to_first_text {
            self.time_to_first_token.get_or_create(&label).observe(time_to_first_text.as_secs_f64());
        }
    }

    /// Counts the tokens of a finished choice.
    pub(crate) fn record_choice(&self, measurement: &RequestMeasurement, outcome: &Outcome) {
        for (kind, count) in [
            ("prompt", outcome.usage.prompt_tokens),
            ("cached", outcome.usage.cached_tokens),
            ("completion", outcome.usage.completion_tokens),
            ("drafted", outcome.report.drafted),
            ("accepted", outcome.report.accepted),
        ] {
            let label = TokenLabels { model: measurement.model.clone(), kind };
            self.tokens.get_or_create(&label).inc_by(u64::from(count));
        }
    }
}

/// The measurement of one request. Dropping it ends the request.
pub(crate) struct RequestMeasurement {
    model: String,
    start: Instant,
    time_to_first_text: Option<Duration>,
    in_flight: Gauge,
}

impl RequestMeasurement {
    /// Records the time of the first text. Later calls have no effect.
    pub(crate) fn record_first_text(&mut self) {
        self.time_to_first_text.get_or_insert_with(|| self.start.elapsed());
    }
}

impl Drop for RequestMeasurement {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}
