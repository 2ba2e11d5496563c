//! Live figures of engines and modes, for `/metrics`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::backend::{Backend, Llama, Node};
use crate::mode::Speculation;
use crate::server::Collector;

/// What scripts made and still use.
#[derive(Default)]
pub(super) struct Observed {
    pub models: Vec<Weak<Llama>>,
    pub nodes: Vec<Weak<Node>>,
    pub modes: Vec<Weak<Speculation>>,
}

/// Reads them when someone asks.
#[derive(Clone)]
pub(super) struct Gauges(pub Arc<RwLock<Observed>>);

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let observed = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let models: Vec<Arc<Llama>> = observed.models.iter().filter_map(Weak::upgrade).collect();
        let gauges = |of: fn(&Llama) -> usize| sums(&models, |model| of(model) as u64);
        let counters = |of: fn(&Llama) -> u64| sums(&models, of);
        let waiting = gauges(|model| model.engine().stats().waiting());
        family(&mut encoder, "engine_waiting", "Requests that wait for a sequence", waiting, gauge)?;
        let active = gauges(|model| model.engine().stats().active());
        family(&mut encoder, "engine_sequences", "Sequences that are open", active, gauge)?;
        let ticks = counters(|model| model.engine().stats().ticks());
        family(&mut encoder, "engine_passes", "Forward passes", ticks, counter)?;
        let rows = counters(|model| model.engine().stats().rows());
        family(&mut encoder, "engine_rows", "Rows in all forward passes", rows, counter)?;
        let committed = counters(|model| model.engine().stats().committed());
        family(&mut encoder, "engine_committed_tokens", "Tokens committed", committed, counter)?;
        let reused = counters(|model| model.engine().stats().reused());
        family(&mut encoder, "engine_reused_tokens", "Prompt tokens found in the cache", reused, counter)?;
        let ties = counters(|model| model.engine().stats().ties());
        family(&mut encoder, "engine_ties", "Positions decided again", ties, counter)?;
        let modes: Vec<Arc<Speculation>> = observed.modes.iter().filter_map(Weak::upgrade).collect();
        let fallbacks = sums(&modes, |mode| mode.totals().fallbacks.load(Ordering::Relaxed));
        family(&mut encoder, "mode_fallbacks", "Requests that a plugin did not finish", fallbacks, counter)?;
        let wasted = sums(&modes, |mode| mode.totals().wasted.load(Ordering::Relaxed));
        family(&mut encoder, "mode_wasted_tokens", "Tokens proposed and not verified", wasted, counter)?;
        let nodes: Vec<Arc<Node>> = observed.nodes.iter().filter_map(Weak::upgrade).collect();
        let up = sums(&nodes, |node| u64::from(node.is_up()));
        family(&mut encoder, "node_up", "1 while a node answers", up, gauge)?;
        let calls = sums(&nodes, |node| node.counts().calls.load(Ordering::Relaxed));
        family(&mut encoder, "node_calls", "Calls made to a node", calls, counter)?;
        let lost = sums(&nodes, |node| node.counts().lost.load(Ordering::Relaxed));
        family(&mut encoder, "node_lost", "Calls that brought nothing, or nonsense", lost, counter)?;
        let resyncs = sums(&nodes, |node| node.counts().resyncs.load(Ordering::Relaxed));
        family(
            &mut encoder,
            "node_resyncs",
            "Sessions opened again from the committed tokens",
            resyncs,
            counter,
        )
    }
}

/// One figure a name.
fn sums<B: Backend>(backends: &[Arc<B>], of: impl Fn(&B) -> u64) -> HashMap<String, u64> {
    let mut sums = HashMap::new();
    for backend in backends {
        *sums.entry(backend.name().to_owned()).or_default() += of(backend);
    }
    sums
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

fn counter(value: u64) -> ConstCounter<u64> {
    ConstCounter::new(value)
}

fn family<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: HashMap<String, u64>,
    make: fn(u64) -> M,
) -> Result<(), std::fmt::Error> {
    let kind = make(0).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (backend, value) in values {
        make(value).encode(family.encode_family(&[("backend", backend.as_str())])?)?;
    }
    Ok(())
}
