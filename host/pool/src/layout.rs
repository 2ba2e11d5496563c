//! From a model and machines to a question for the placement plugin, and from its answer to what the engine
//! loads.

use std::net::SocketAddr;

use tightwad_core::PoolSpec;
use tightwad_engine::pool::{
    FLASH_ATTENTION, LayerShape, MAX_WORKERS, ModelShape, Pin, PoolConfig, PoolWorker,
};
use tightwad_modes::{Layer, Machine, Plan, Shape, Shortage};

/// Shortest context that a pool takes by itself, and that of models that do not say what they were trained for.
const MIN_CONTEXT: u32 = 4096;
/// Rows of a forward pass, at most: what scratch memory is needed for.
const ROWS: u64 = 512;
/// llama.cpp rounds a sequence's context up to a multiple of this.
const CONTEXT_STEP: u32 = 256;
/// Bytes of a number between two layers.
const NUMBER: u64 = 4;

/// Why a plan cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongPlan {
    /// It does not place every layer once.
    #[error("it places {placed} of {layers} layers")]
    Layers {
        /// Layers that it places.
        placed: u64,
        /// Layers of the model.
        layers: usize,
    },
    /// It has a number that does not belong to a machine.
    #[error("it names a machine that there is not")]
    UnknownMachine,
    /// It has a machine in two shares.
    #[error("it names '{0}' twice")]
    Twice(String),
    /// It exceeds the layers that a machine may hold.
    #[error("it gives '{0}' more layers than it may hold")]
    TooManyLayers(String),
    /// It has a share without layers.
    #[error("it gives '{0}' no layers; it must leave it out")]
    NoLayers(String),
    /// It puts this machine behind a worker.
    #[error("this machine's layers must be the first ones")]
    HereNotFirst,
    /// It uses this machine, which is not among the machines.
    #[error("it puts the output head on this machine, which is none of those given")]
    HereNotGiven,
    /// It exceeds the memory that a machine lends.
    #[error("it puts {needed} bytes on '{machine}', which lends {lent}")]
    Memory {
        /// The machine.
        machine: String,
        /// Bytes that its share needs.
        needed: u64,
        /// Bytes that it lends.
        lent: u64,
    },
    /// It uses more workers than llama.cpp can.
    #[error("it uses {0} workers; llama.cpp has at most {MAX_WORKERS}")]
    TooManyWorkers(usize),
    /// It uses a worker to which no tunnel leads.
    #[error("a worker of the plan has no tunnel")]
    NoTunnel,
    /// A pin names a worker that holds no layers.
    #[error("'pin' sends '{pattern}' to the worker '{worker}', which has no layers in this plan")]
    Pin {
        /// The pattern of the pin.
        pattern: String,
        /// The worker.
        worker: String,
    },
}

/// A part of the model on a machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Placed {
    /// The machine.
    pub machine: String,
    /// First layer, counted from 0.
    pub first: u32,
    /// Layers.
    pub layers: u32,
    /// Bytes of their weights.
    pub weights: u64,
    /// Bytes of their cache, for all sequences.
    pub cache: u64,
    /// True where the output head lies.
    pub output: bool,
}

/// Tokens that a sequence of this pool may have, best first: what the script says; else what the model was trained
/// for, and halves of that down to [`MIN_CONTEXT`], of which the first that fits is taken.
pub(crate) fn contexts(spec: &PoolSpec, model: &ModelShape) -> Vec<u32> {
    if let Some(context) = spec.context.filter(|context| *context > 0) {
        return vec![context];
    }
    let trained = if model.context == 0 { MIN_CONTEXT } else { model.context };
    let halves = std::iter::successors(Some(trained), |context| Some(context / 2));
    let mut contexts: Vec<u32> = halves.take_while(|context| *context >= MIN_CONTEXT).collect();
    if contexts.is_empty() {
        contexts.push(trained);
    }
    contexts
}

/// What is to be placed, for sequences of `context` tokens.
pub(crate) fn shape(spec: &PoolSpec, model: &ModelShape, context: u32) -> Shape {
    let context = u64::from(context.next_multiple_of(CONTEXT_STEP));
    let tokens = context * u64::from(spec.slots);
    let layer = |layer: &LayerShape| Layer { weights: layer.weights, cache: layer.cache * tokens };
    let row = u64::from(model.embedding) * 8 + u64::from(model.feed_forward) * 3;
    // The mask of flash attention, in 32 and 16 bits; without it every row's attention in every head.
    let attention = if FLASH_ATTENTION { context * 3 / 2 } else { u64::from(model.heads) * context };
    Shape {
        layers: model.layers.iter().map(layer).collect(),
        output: model.output,
        logits: u64::from(model.vocabulary) * NUMBER,
        activations: u64::from(model.embedding) * NUMBER,
        scratch: ROWS * (row + attention) * NUMBER,
        head_scratch: ROWS * u64::from(model.vocabulary) * NUMBER,
    }
}

/// Checks a plan: plugins may be slow, never wrong.
///
/// # Errors
///
/// [`WrongPlan`] names the first mistake.
pub(crate) fn check(plan: &Plan, shape: &Shape, machines: &[Machine]) -> Result<(), WrongPlan> {
    let placed_layers: u64 = plan.shares.iter().map(|share| u64::from(share.layers)).sum();
    if placed_layers != shape.layers.len() as u64 {
        return Err(WrongPlan::Layers { placed: placed_layers, layers: shape.layers.len() });
    }
    let mut used = vec![false; machines.len()];
    for (index, share) in plan.shares.iter().enumerate() {
        let machine = machines.get(share.machine as usize).ok_or(WrongPlan::UnknownMachine)?;
        if std::mem::replace(&mut used[share.machine as usize], true) {
            return Err(WrongPlan::Twice(machine.name.clone()));
        }
        if share.layers > machine.max_layers {
            return Err(WrongPlan::TooManyLayers(machine.name.clone()));
        }
        if share.layers == 0 {
            return Err(WrongPlan::NoLayers(machine.name.clone()));
        }
        if machine.here && index > 0 {
            return Err(WrongPlan::HereNotFirst);
        }
    }
    if plan.output_here && !machines.iter().any(|machine| machine.here) {
        return Err(WrongPlan::HereNotGiven);
    }
    for part in placed(plan, shape, machines) {
        let machine = machines.iter().find(|machine| machine.name == part.machine);
        // The part that is only the head counts it as its weights.
        let output = if part.layers > 0 { shape.output } else { 0 };
        let head = if part.output { output + shape.head_scratch } else { 0 };
        let needed = part.weights + part.cache + head + shape.scratch;
        if let Some(machine) = machine.filter(|machine| needed > machine.memory) {
            let (machine, lent) = (machine.name.clone(), machine.memory);
            return Err(WrongPlan::Memory { machine, needed, lent });
        }
    }
    let workers = plan.shares.iter().filter(|share| !machines[share.machine as usize].here).count();
    if workers > MAX_WORKERS {
        return Err(WrongPlan::TooManyWorkers(workers));
    }
    Ok(())
}

/// The parts of a plan that was checked.
pub(crate) fn placed(plan: &Plan, shape: &Shape, machines: &[Machine]) -> Vec<Placed> {
    let mut first = 0;
    let mut parts = Vec::new();
    for (index, share) in plan.shares.iter().enumerate() {
        let layers = &shape.layers[first as usize..(first + share.layers) as usize];
        let last = index + 1 == plan.shares.len();
        parts.push(Placed {
            machine: machines[share.machine as usize].name.clone(),
            first,
            layers: share.layers,
            weights: layers.iter().map(|layer| layer.weights).sum(),
            cache: layers.iter().map(|layer| layer.cache).sum(),
            output: last && !plan.output_here,
        });
        first += share.layers;
    }
    if let Some(here) = machines.iter().find(|machine| machine.here).filter(|_| plan.output_here) {
        match parts.iter_mut().find(|part| part.machine == here.name) {
            Some(part) => part.output = true,
            None => parts.push(Placed {
                machine: here.name.clone(),
                first,
                layers: 0,
                weights: shape.output,
                cache: 0,
                output: true,
            }),
        }
    }
    parts
}

/// What the engine loads; `endpoint` says where llama.cpp finds the worker of machine `n`.
pub(crate) fn config(
    plan: &Plan,
    machines: &[Machine],
    endpoint: impl Fn(usize) -> Option<SocketAddr>,
    pins: &[(String, Option<String>)],
) -> Result<PoolConfig, WrongPlan> {
    let mut config = PoolConfig { output_here: plan.output_here, ..PoolConfig::default() };
    let mut names = Vec::new();
    for share in &plan.shares {
        let machine = &machines[share.machine as usize];
        if machine.here {
            config.here = share.layers;
            continue;
        }
        let endpoint = endpoint(share.machine as usize).ok_or(WrongPlan::NoTunnel)?;
        config.workers.push(PoolWorker { endpoint: endpoint.to_string(), layers: share.layers });
        names.push(machine.name.as_str());
    }
    for (pattern, worker) in pins {
        let place = |name: &String| names.iter().position(|own| own == name);
        let worker = match worker {
            None => None,
            Some(name) => Some(
                place(name)
                    .ok_or_else(|| WrongPlan::Pin { pattern: pattern.clone(), worker: name.clone() })?,
            ),
        };
        config.pins.push(Pin { pattern: pattern.clone(), worker });
    }
    Ok(config)
}

/// Why a model does not fit, and what to do about it.
pub(crate) fn too_big(shortage: &Shortage, shape: &Shape, machines: &[Machine]) -> String {
    let size = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    let weights: u64 = shape.layers.iter().map(|layer| layer.weights).sum::<u64>() + shape.output;
    let cache: u64 = shape.layers.iter().map(|layer| layer.cache).sum();
    let lent = |machine: &Machine| format!("{} lends {}", machine.name, size(machine.memory));
    let lent: Vec<String> = machines.iter().filter(|machine| machine.max_layers > 0).map(lent).collect();
    format!(
        "the model does not fit: {} are missing. Its weights take {}, the cache of all sequences {}, scratch {} a machine and {} more with the output head; {}. {} of {} layers would fit: add a worker, lend more with --memory, or lower `context` or `slots`",
        size(shortage.missing),
        size(weights),
        size(cache),
        size(shape.scratch),
        size(shape.head_scratch),
        lent.join(", "),
        shortage.fits,
        shape.layers.len()
    )
}

#[cfg(test)]
mod tests {
    use tightwad_modes::Share;

    use super::*;

    fn machine(name: &str, here: bool) -> Machine {
        Machine {
            name: name.to_owned(),
            memory: 1 << 30,
            speed: 0,
            bandwidth: 0,
            round_trip: 0,
            here,
            max_layers: 8,
        }
    }

    fn sample() -> (Shape, Vec<Machine>) {
        let layers = vec![Layer { weights: 10, cache: 1 }; 4];
        let shape = Shape { layers, output: 7, logits: 4, activations: 4, scratch: 0, head_scratch: 0 };
        (shape, vec![machine("here", true), machine("a", false), machine("b", false)])
    }

    fn plan(shares: &[(u32, u32)], output_here: bool) -> Plan {
        let shares = shares.iter().map(|(machine, layers)| Share { machine: *machine, layers: *layers });
        Plan { shares: shares.collect(), output_here, token: 0 }
    }

    #[test]
    fn wrong_plans_are_refused() {
        let (shape, machines) = sample();
        let wrong = |shares, output| check(&plan(shares, output), &shape, &machines).unwrap_err().to_string();
        assert!(wrong(&[(1, 3)], true).contains("3 of 4"));
        assert!(wrong(&[(9, 4)], true).contains("there is not"));
        assert!(wrong(&[(1, 2), (1, 2)], true).contains("twice"));
        assert!(wrong(&[(1, 2), (0, 2)], true).contains("first"));
        assert!(wrong(&[(1, 4), (2, 0)], true).contains("leave it out"));
        let mut small = machines.clone();
        small[1].memory = 40;
        let error = check(&plan(&[(1, 4)], true), &shape, &small).unwrap_err();
        assert!(error.to_string().contains("which lends 40"));
        assert!(check(&plan(&[(0, 1), (2, 2), (1, 1)], true), &shape, &machines).is_ok());
        assert!(check(&plan(&[(1, 4)], true), &shape, &machines[1..]).is_err());
    }

    #[test]
    fn plans_become_configurations() {
        let (shape, machines) = sample();
        let plan = plan(&[(0, 1), (2, 2), (1, 1)], true);
        let at = |machine: usize| Some(SocketAddr::from(([127, 0, 0, 1], machine as u16)));
        let pins = [("exps".to_owned(), Some("a".to_owned())), ("head".to_owned(), None)];
        let config = config(&plan, &machines, at, &pins).unwrap();
        assert_eq!(config.here, 1);
        assert_eq!(config.workers[0], PoolWorker { endpoint: "127.0.0.1:2".to_owned(), layers: 2 });
        assert_eq!(config.pins[0].worker, Some(1));
        assert_eq!(config.pins[1].worker, None);
        let parts = placed(&plan, &shape, &machines);
        assert_eq!((parts[1].first, parts[1].weights), (1, 20));
        assert!(parts[0].output && !parts[2].output);
        let gone = [("exps".to_owned(), Some("gone".to_owned()))];
        let error = super::config(&plan, &machines, at, &gone).unwrap_err();
        assert!(error.to_string().contains("'gone'"));
    }
}
