//! Live figures of engines and modes, for `/metrics`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, Weak};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tightwad_core::{Backend, sync};
use tightwad_engine::Llama;
use tightwad_modes::{Consensus, Gate, GateTotals, Raced, Speculation, Totals};
use tightwad_node::Node;
use tightwad_sandbox::CallCounts;
use tightwad_serve::Collector;

use crate::app::shelf::Shelf;

/// What scripts made and still use.
#[derive(Default)]
pub(crate) struct Observed {
    pub models: Vec<Weak<Llama>>,
    pub nodes: Vec<Weak<Node>>,
    pub modes: Vec<Weak<Speculation>>,
    pub consensus: Vec<Weak<Consensus>>,
    pub gates: Vec<Weak<Gate>>,
}

impl Observed {
    /// The sums of every mode in use, by its name.
    fn totals(&self) -> Vec<(String, Arc<Totals>)> {
        let exact = self.modes.iter().filter_map(Weak::upgrade);
        let approximate = self.consensus.iter().filter_map(Weak::upgrade);
        let exact = exact.map(|mode| (mode.name().to_owned(), mode.totals().clone()));
        exact.chain(approximate.map(|mode| (mode.name().to_owned(), mode.totals().clone()))).collect()
    }
}

/// Reads them when someone asks.
#[derive(Clone)]
pub(crate) struct Gauges(pub Arc<RwLock<Observed>>, pub Option<Arc<Shelf>>);

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let observed = sync::read(&self.0);
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
        modes(&mut encoder, &observed.totals())?;
        gates(&mut encoder, &observed)?;
        plugins(&mut encoder, &observed, self.1.as_deref())?;
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

/// What modes did.
fn modes(encoder: &mut DescriptorEncoder, modes: &[(String, Arc<Totals>)]) -> Result<(), std::fmt::Error> {
    type Of = fn(&Totals) -> &AtomicU64;
    let figures: [(&str, &str, Of); 9] = [
        ("mode_fallbacks", "Requests that a plugin did not finish", |totals| &totals.fallbacks),
        ("mode_wasted_tokens", "Tokens proposed and not verified", |totals| &totals.wasted),
        ("mode_verifications", "Verifications of at least one proposal", |totals| &totals.rounds),
        ("mode_verified_paths", "Continuations in them", |totals| &totals.paths),
        ("mode_verified_tokens", "Proposals in them", |totals| &totals.drafted),
        ("mode_accepted_tokens", "Proposals that the target committed", |totals| &totals.accepted),
        ("mode_skips", "Times that the target was not asked", |totals| &totals.skips),
        ("mode_unverified_tokens", "Tokens committed without the target", |totals| &totals.unverified),
        ("mode_decodes", "Stretches of plain decoding", |totals| &totals.decodes),
    ];
    for (name, help, of) in figures {
        let values = modes.iter().map(|(mode, totals)| (mode.clone(), of(totals).load(Ordering::Relaxed)));
        family(encoder, name, help, summed(values), counter)?;
    }
    type Race = fn(&Raced) -> u64;
    let figures: [(&str, &str, Race); 4] = [
        ("drafter_answers", "Races answered in time", |raced| raced.answers),
        ("drafter_misses", "Races missed", |raced| raced.misses),
        ("drafter_wins", "Answers whose first token was committed", |raced| raced.wins),
        ("drafter_microseconds", "Time of answers", |raced| raced.took.as_micros() as u64),
    ];
    for (name, help, of) in figures {
        let values = modes.iter().flat_map(|(_, totals)| totals.raced());
        family(encoder, name, help, summed(values.map(|(drafter, raced)| (drafter, of(&raced)))), counter)?;
    }
    Ok(())
}

/// What gates did.
fn gates(encoder: &mut DescriptorEncoder, observed: &Observed) -> Result<(), std::fmt::Error> {
    let gates: Vec<Arc<Gate>> = observed.gates.iter().filter_map(Weak::upgrade).collect();
    type Of = fn(&GateTotals) -> &AtomicU64;
    let figures: [(&str, &str, Of); 11] = [
        ("gate_approved", "Candidates passed on unchanged", |totals| &totals.approved),
        ("gate_corrected", "Answers that the reviewer finished", |totals| &totals.corrected),
        ("gate_rejected", "Answers of the reviewer's own", |totals| &totals.rejected),
        ("gate_unreviewed", "Candidates passed on without a review", |totals| &totals.unreviewed),
        ("gate_tokens", "Tokens of all answers", |totals| &totals.tokens),
        ("gate_reviewer_decoded_tokens", "Tokens that reviewers generated", |totals| &totals.decoded),
        ("gate_reviewer_read_tokens", "Tokens that reviewers only read", |totals| &totals.read),
        ("gate_fallbacks", "Requests that a gate plugin did not finish", |totals| &totals.fallbacks),
        ("gate_writing_milliseconds", "Time in which fleets wrote", |totals| &totals.took[0]),
        ("gate_reviewing_milliseconds", "Time in which reviewers reviewed", |totals| &totals.took[1]),
        ("gate_ending_milliseconds", "Time after that: corrections, reviewers' own answers", |totals| {
            &totals.took[2]
        }),
    ];
    for (name, help, of) in figures {
        let values = sums(&gates, |gate| of(gate.totals()).load(Ordering::Relaxed));
        family(encoder, name, help, values, counter)?;
    }
    let hits = sums(&gates, |gate| gate.cache_hits());
    family(encoder, "gate_reviews_cached", "Reviews that were not made again", hits, counter)
}

/// What audits have shown, what policies cost, and how many components live.
fn plugins(
    encoder: &mut DescriptorEncoder,
    observed: &Observed,
    shelf: Option<&Shelf>,
) -> Result<(), std::fmt::Error> {
    let modes: Vec<Arc<Consensus>> = observed.consensus.iter().filter_map(Weak::upgrade).collect();
    let audited = sums(&modes, |mode| mode.agreement().counts().0);
    family(encoder, "audited_tokens", "Unverified tokens that the target was asked about", audited, counter)?;
    let agreed = sums(&modes, |mode| mode.agreement().counts().1);
    family(encoder, "agreed_tokens", "Those that it would have chosen", agreed, counter)?;
    type Of = fn(&CallCounts) -> u64;
    let figures: [(&str, &str, Of); 3] = [
        (
            "plugin_calls",
            "Calls of a plugin's exports; a mode or a gate has one a request",
            CallCounts::calls,
        ),
        ("plugin_failures", "Calls that trapped, broke a limit or brought nonsense", CallCounts::failures),
        ("plugin_microseconds", "Time in calls, the host's functions included", |counts| {
            counts.time().as_micros() as u64
        }),
    ];
    let used = shelf.map(Shelf::counts).unwrap_or_default();
    for (name, help, of) in figures {
        family(
            encoder,
            name,
            help,
            summed(used.iter().map(|(label, counts)| (label.clone(), of(counts)))),
            counter,
        )?;
    }
    let instances = shelf.map(|shelf| ("all".to_owned(), shelf.instances() as u64));
    family(encoder, "plugin_instances", "Components that live", instances.into_iter().collect(), gauge)
}

/// One figure a name.
fn sums<B: Backend>(backends: &[Arc<B>], of: impl Fn(&B) -> u64) -> HashMap<String, u64> {
    summed(backends.iter().map(|backend| (backend.name().to_owned(), of(backend))))
}

/// The same of any names.
fn summed(values: impl Iterator<Item = (String, u64)>) -> HashMap<String, u64> {
    let mut sums = HashMap::new();
    for (name, value) in values {
        *sums.entry(name).or_default() += value;
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
