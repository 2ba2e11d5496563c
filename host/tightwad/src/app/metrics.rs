//! Metrics of engines, modes, gates, plugins and nodes, for `/metrics` and for the book.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tightwad_core::{Backend, sync};
use tightwad_engine::Llama;
use tightwad_modes::{Consensus, Gate, RaceStats, Speculation, Totals};
use tightwad_node::Node;
use tightwad_sandbox::CallCounts;
use tightwad_serve::{Collector, ENDPOINT_METRICS, MetricDescription};

use crate::app::plugin_folders::PluginFolders;

/// A metric with one value per source of type `T`.
struct Metric<T> {
    /// Without the prefix `tightwad_`, and without the suffix `_total` of counters.
    name: &'static str,
    help: &'static str,
    read: Read<T>,
}

/// Reads a metric's value from one source.
enum Read<T> {
    Counter(fn(&T) -> u64),
    Gauge(fn(&T) -> u64),
    /// A counter in seconds.
    Seconds(fn(&T) -> Duration),
}

/// Metrics with the label `engine`: the model's name.
const ENGINE: [Metric<Llama>; 8] = [
    gauge("engine_queued_requests", "Requests that wait for a slot", |model| {
        model.engine().stats().queued_requests() as u64
    }),
    gauge("engine_active_sequences", "Open sequences", |model| {
        model.engine().stats().active_sequences() as u64
    }),
    counter("engine_passes", "Forward passes", |model| model.engine().stats().forward_passes()),
    counter("engine_rows", "Rows of all forward passes", |model| model.engine().stats().rows()),
    counter("engine_committed_tokens", "Committed tokens", |model| model.engine().stats().committed_tokens()),
    counter("engine_reused_tokens", "Prompt tokens that the KV cache already held", |model| {
        model.engine().stats().reused_tokens()
    }),
    counter("engine_restarts", "Restarts after a panic", |model| model.engine().stats().restarts()),
    counter("engine_tied_positions", "Positions that the one-token path decided again", |model| {
        model.engine().stats().tied_positions()
    }),
];

/// Metrics with the label `mode`: the name of a speculation or a consensus.
const MODE: [Metric<Totals>; 9] = [
    counter("mode_fallbacks", "Requests that plain decoding finished because the driver failed", |totals| {
        read_count(&totals.fallbacks)
    }),
    counter("mode_wasted_tokens", "Proposed tokens that the target did not verify", |totals| {
        read_count(&totals.wasted)
    }),
    counter("mode_verifications", "Verifications of at least one proposal", |totals| {
        read_count(&totals.rounds)
    }),
    counter("mode_verified_paths", "Paths of all verifications", |totals| read_count(&totals.paths)),
    counter("mode_drafted_tokens", "Proposals of all verifications", |totals| read_count(&totals.drafted)),
    counter("mode_accepted_tokens", "Proposals that the target committed", |totals| {
        read_count(&totals.accepted)
    }),
    counter("mode_skips", "Rulings that committed tokens without the target", |totals| {
        read_count(&totals.skips)
    }),
    counter("mode_unverified_tokens", "Tokens committed without the target", |totals| {
        read_count(&totals.unverified)
    }),
    counter("mode_decodes", "Calls of plain decoding", |totals| read_count(&totals.decodes)),
];

/// Metrics with the label `mode`: the name of a consensus.
const CONSENSUS: [Metric<Consensus>; 2] = [
    counter("mode_audited_tokens", "Unverified tokens that the target checked afterwards", |mode| {
        mode.agreement().counts().0
    }),
    counter("mode_agreed_tokens", "Audited tokens that the target would have chosen", |mode| {
        mode.agreement().counts().1
    }),
];

/// Metrics of races with the label `drafter`: the drafter's name.
const DRAFTER: [Metric<RaceStats>; 4] = [
    counter("drafter_drafts", "Drafts in time", |races| races.drafts),
    counter("drafter_misses", "Races without a draft in time", |races| races.misses),
    counter("drafter_wins", "Drafts whose first token was committed", |races| races.wins),
    seconds("drafter_draft_seconds", "Time of all drafts in time", |races| races.draft_time),
];

/// Metrics with the label `gate`: the gate's name.
const GATE: [Metric<Gate>; 12] = [
    counter("gate_approved", "Candidates passed on unchanged", |gate| read_count(&gate.totals().approved)),
    counter("gate_corrected", "Candidates that the reviewer finished", |gate| {
        read_count(&gate.totals().corrected)
    }),
    counter("gate_rejected", "Requests that the reviewer answered", |gate| {
        read_count(&gate.totals().rejected)
    }),
    counter("gate_unreviewed", "Candidates passed on without a review", |gate| {
        read_count(&gate.totals().unreviewed)
    }),
    counter("gate_tokens", "Tokens of all answers", |gate| read_count(&gate.totals().tokens)),
    counter("gate_reviewer_generated_tokens", "Tokens that the reviewer generated", |gate| {
        read_count(&gate.totals().reviewer_generated_tokens)
    }),
    counter("gate_reviewer_scored_tokens", "Tokens that the reviewer scored", |gate| {
        read_count(&gate.totals().reviewer_scored_tokens)
    }),
    counter("gate_fallbacks", "Requests that the reviewer answered because the driver failed", |gate| {
        read_count(&gate.totals().fallbacks)
    }),
    seconds("gate_generation_seconds", "Time in which the fleet generated candidates", |gate| {
        Duration::from_millis(read_count(&gate.totals().generation_ms))
    }),
    seconds("gate_review_seconds", "Time of reviews", |gate| {
        Duration::from_millis(read_count(&gate.totals().review_ms))
    }),
    seconds("gate_completion_seconds", "Time in which the reviewer corrected or answered", |gate| {
        Duration::from_millis(read_count(&gate.totals().completion_ms))
    }),
    counter("gate_cached_reviews", "Reviews that the cache answered", Gate::cache_hits),
];

/// Metrics with the label `plugin`: `NAME@VERSION`. Plugins of pools and pulls are not counted.
const PLUGIN: [Metric<CallCounts>; 3] = [
    counter("plugin_calls", "Calls of a plugin's exports; a driver has one per request", CallCounts::calls),
    counter(
        "plugin_failures",
        "Calls that trapped, exceeded a limit or returned an invalid value",
        CallCounts::failures,
    ),
    seconds("plugin_call_seconds", "Time of all calls, with the host functions in them", CallCounts::time),
];

/// Metrics of the host, without a label.
const HOST: [Metric<PluginFolders>; 1] =
    [gauge("plugin_instances", "Live instances of all plugins", |folders| folders.instances() as u64)];

/// Metrics with the label `node`: the node's name.
const NODE: [Metric<Node>; 4] = [
    gauge("node_up", "1 while the node answers, otherwise 0", |node| u64::from(node.is_up())),
    counter("node_calls", "Calls to the node", |node| read_count(&node.counters().calls)),
    counter("node_failed_calls", "Calls without a valid reply", |node| {
        read_count(&node.counters().failed_calls)
    }),
    counter("node_session_resyncs", "Sessions opened again from the committed tokens", |node| {
        read_count(&node.counters().session_resyncs)
    }),
];

const fn counter<T>(name: &'static str, help: &'static str, read: fn(&T) -> u64) -> Metric<T> {
    Metric { name, help, read: Read::Counter(read) }
}

const fn gauge<T>(name: &'static str, help: &'static str, read: fn(&T) -> u64) -> Metric<T> {
    Metric { name, help, read: Read::Gauge(read) }
}

const fn seconds<T>(name: &'static str, help: &'static str, read: fn(&T) -> Duration) -> Metric<T> {
    Metric { name, help, read: Read::Seconds(read) }
}

fn read_count(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// The backends of the script. A backend disappears when the script drops it.
#[derive(Default)]
pub(crate) struct MetricSources {
    pub models: Vec<Weak<Llama>>,
    pub nodes: Vec<Weak<Node>>,
    pub modes: Vec<Weak<Speculation>>,
    pub consensus: Vec<Weak<Consensus>>,
    pub gates: Vec<Weak<Gate>>,
}

impl MetricSources {
    /// The totals of every speculation and consensus, each with its name.
    fn totals(&self) -> Vec<(String, Arc<Totals>)> {
        let exact = self.modes.iter().filter_map(Weak::upgrade);
        let approximate = self.consensus.iter().filter_map(Weak::upgrade);
        let exact = exact.map(|mode| (mode.name().to_owned(), mode.totals().clone()));
        exact.chain(approximate.map(|mode| (mode.name().to_owned(), mode.totals().clone()))).collect()
    }
}

/// Reads the sources on each request for `/metrics`. A node has no plugin folders.
#[derive(Clone)]
pub(crate) struct MetricsCollector(pub Arc<RwLock<MetricSources>>, pub Option<Arc<PluginFolders>>);

impl std::fmt::Debug for MetricsCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetricsCollector")
    }
}

impl Collector for MetricsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let sources = sync::read(&self.0);
        encode(&mut encoder, &ENGINE, "engine", &with_names(&sources.models))?;
        let totals = sources.totals();
        encode(&mut encoder, &MODE, "mode", &totals)?;
        encode(&mut encoder, &CONSENSUS, "mode", &with_names(&sources.consensus))?;
        let races: Vec<(String, Arc<RaceStats>)> = totals
            .iter()
            .flat_map(|(_, totals)| totals.race_stats())
            .map(|(drafter, races)| (drafter, Arc::new(races)))
            .collect();
        encode(&mut encoder, &DRAFTER, "drafter", &races)?;
        encode(&mut encoder, &GATE, "gate", &with_names(&sources.gates))?;
        encode(&mut encoder, &NODE, "node", &with_names(&sources.nodes))?;
        let Some(folders) = &self.1 else { return Ok(()) };
        encode(&mut encoder, &PLUGIN, "plugin", &folders.counts())?;
        encode(&mut encoder, &HOST, "", &[(String::new(), folders.clone())])
    }
}

/// The live backends, each with its name.
fn with_names<B: Backend>(backends: &[Weak<B>]) -> Vec<(String, Arc<B>)> {
    let live = backends.iter().filter_map(Weak::upgrade);
    live.map(|backend| (backend.name().to_owned(), backend)).collect()
}

/// Encodes `metrics` of `sources`. Sums the values of equal names. Leaves out an empty `label`.
fn encode<T>(
    encoder: &mut DescriptorEncoder,
    metrics: &[Metric<T>],
    label: &str,
    sources: &[(String, Arc<T>)],
) -> Result<(), std::fmt::Error> {
    for Metric { name, help, read } in metrics {
        match read {
            Read::Counter(read) => {
                let values = sums(sources, read);
                family(encoder, (name, help), label, values.into_iter().map(counter_of))?;
            }
            Read::Gauge(read) => {
                let values = sums(sources, read);
                family(encoder, (name, help), label, values.into_iter().map(gauge_of))?;
            }
            Read::Seconds(read) => {
                let values = sums(sources, |source| read(source).as_secs_f64());
                family(encoder, (name, help), label, values.into_iter().map(counter_of))?;
            }
        }
    }
    Ok(())
}

fn counter_of<N>((name, value): (String, N)) -> (String, ConstCounter<N>) {
    (name, ConstCounter::new(value))
}

fn gauge_of((name, value): (String, u64)) -> (String, ConstGauge<i64>) {
    (name, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn sums<T, N>(sources: &[(String, Arc<T>)], read: impl Fn(&T) -> N) -> BTreeMap<String, N>
where
    N: Default + std::ops::AddAssign,
{
    let mut sums = BTreeMap::<String, N>::new();
    for (name, source) in sources {
        *sums.entry(name.clone()).or_default() += read(source);
    }
    sums
}

fn family<M: EncodeMetric + TypedMetric>(
    encoder: &mut DescriptorEncoder,
    (name, help): (&str, &str),
    label: &str,
    values: impl Iterator<Item = (String, M)>,
) -> Result<(), std::fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, M::TYPE)?;
    for (label_value, metric) in values {
        if label.is_empty() {
            let no_labels: [(&str, &str); 0] = [];
            metric.encode(family.encode_family(&no_labels)?)?;
        } else {
            metric.encode(family.encode_family(&[(label, label_value.as_str())])?)?;
        }
    }
    Ok(())
}

/// The page `reference/metrics.md` of the book.
pub(crate) fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n<!-- Generated by `cargo xtask book`. Do not edit. -->\n\n\
         `GET /metrics` returns OpenMetrics text. Times are in seconds. Values of the same label are added up. A reload \
         of the script resets all values, except those of the endpoint and of models that stay loaded.\n\n\
         ## Endpoint\n\nThe label `model` is the name that clients ask for.\n\n| name | kind | meaning |\n|---|---|---|\n",
    );
    for MetricDescription { name, kind, help } in ENDPOINT_METRICS {
        let suffix = if *kind == "counter" { "_total" } else { "" };
        let _ = writeln!(page, "| `tightwad_{name}{suffix}` | {kind} | {help} |");
    }
    section(&mut page, "Engines", "The label `engine` is the name of a model in this process.", &ENGINE);
    section(&mut page, "Speculation and consensus", "The label `mode` is the name of the mode.", &MODE);
    section(&mut page, "Consensus", "The label `mode` is the name of the consensus.", &CONSENSUS);
    section(
        &mut page,
        "Drafters",
        "The label `drafter` is the drafter's name. These metrics count races.",
        &DRAFTER,
    );
    section(&mut page, "Gates", "The label `gate` is the gate's name.", &GATE);
    let text = "The label `plugin` is `NAME@VERSION`. A file that replaces another one keeps its counts. Plugins of \
                pools and pulls are not counted.";
    section(&mut page, "Plugins", text, &PLUGIN);
    section(&mut page, "Host", "No label.", &HOST);
    section(&mut page, "Nodes", "The label `node` is the node's name.", &NODE);
    page
}

fn section<T>(page: &mut String, title: &str, text: &str, metrics: &[Metric<T>]) {
    let _ = writeln!(page, "\n## {title}\n\n{text}\n\n| name | kind | meaning |\n|---|---|---|");
    for Metric { name, help, read } in metrics {
        let (suffix, kind) = match read {
            Read::Counter(_) | Read::Seconds(_) => ("_total", "counter"),
            Read::Gauge(_) => ("", "gauge"),
        };
        let _ = writeln!(page, "| `tightwad_{name}{suffix}` | {kind} | {help} |");
    }
}
