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

/// Gauges and counters that live elsewhere, read when someone asks.
pub use prometheus_client::collector::Collector;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    model: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Tokens {
    model: String,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Model {
    model: String,
}

/// What the endpoint counts.
pub struct Metrics {
    registry: Mutex<Registry>,
    answered: Family<Answered, Counter>,
    tokens: Family<Tokens, Counter>,
    in_flight: Gauge,
    first_token: Family<Model, Histogram>,
    duration: Family<Model, Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tightwad");
        let histogram = || Histogram::new(exponential_buckets(0.01, 2.0, 15));
        let metrics = Self {
            registry: Mutex::default(),
            answered: Family::default(),
            tokens: Family::default(),
            in_flight: Gauge::default(),
            first_token: Family::new_with_constructor(histogram),
            duration: Family::new_with_constructor(histogram),
        };
        registry.register("requests", "Requests answered", metrics.answered.clone());
        registry.register("tokens", "Tokens, by kind", metrics.tokens.clone());
        registry.register("requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        let text = "Seconds until the first text of an answer";
        registry.register("time_to_first_token_seconds", text, metrics.first_token.clone());
        registry.register("request_seconds", "Seconds a request took", metrics.duration.clone());
        Self { registry: Mutex::new(registry), ..metrics }
    }
}

impl Metrics {
    /// Adds what lives elsewhere to the exposition.
    pub fn register(&self, collector: Box<dyn Collector>) {
        sync::lock(&self.registry).register_collector(collector);
    }

    /// All of them, in the text format of OpenMetrics.
    pub(crate) fn exposition(&self) -> String {
        let mut text = String::new();
        let registry = sync::lock(&self.registry);
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    /// Begins to observe one request.
    pub(crate) fn observe(&self, model: &str) -> Observation {
        self.in_flight.inc();
        Observation {
            model: model.to_owned(),
            start: Instant::now(),
            first: None,
            in_flight: self.in_flight.clone(),
        }
    }

    /// The request was answered.
    pub(crate) fn answered(&self, observation: &Observation, status: u16) {
        let model = observation.model.clone();
        self.answered.get_or_create(&Answered { model: model.clone(), status }).inc();
        let label = Model { model };
        self.duration.get_or_create(&label).observe(observation.start.elapsed().as_secs_f64());
        if let Some(first) = observation.first {
            self.first_token.get_or_create(&label).observe(first.as_secs_f64());
        }
    }

    /// One choice is done.
    pub(crate) fn done(&self, observation: &Observation, outcome: &Outcome) {
        for (kind, count) in [
            ("prompt", outcome.usage.prompt_tokens),
            ("cached", outcome.usage.cached_tokens),
            ("completion", outcome.usage.completion_tokens),
            ("drafted", outcome.report.drafted),
            ("accepted", outcome.report.accepted),
        ] {
            let label = Tokens { model: observation.model.clone(), kind };
            self.tokens.get_or_create(&label).inc_by(u64::from(count));
        }
    }
}

/// One request under observation; dropping it ends it.
pub(crate) struct Observation {
    model: String,
    start: Instant,
    first: Option<Duration>,
    in_flight: Gauge,
}

impl Observation {
    /// The first text has come; later calls change nothing.
    pub(crate) fn first(&mut self) {
        self.first.get_or_insert_with(|| self.start.elapsed());
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}
