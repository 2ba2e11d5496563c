//! Converts a model and machines to the input of the placement policy, and a plan to the engine's configuration.

use std::net::SocketAddr;

use regex::bytes::RegexBuilder;
use tightwad_core::PoolSpec;
use tightwad_engine::pool::{
    FLASH_ATTENTION, LayerShape, MAX_WORKERS, ModelShape, PoolConfig, PoolWorker, TensorOverride,
};
use tightwad_modes::{Layer, Machine, Plan, Shape, Shortage};

/// The shortest context that a pool chooses itself. Models without a trained context length also get this context.
const MIN_CONTEXT_TOKENS: u32 = 4096;
/// The maximum number of rows of a forward pass. Compute buffers are sized for it.
const MAX_PASS_ROWS: u64 = 512;
/// llama.cpp rounds the context of a sequence up to a multiple of this number of tokens.
const CONTEXT_MULTIPLE: u32 = 256;
/// The size of an activation in bytes.
const F32_BYTES: u64 = 4;

/// A plan that cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    /// The plan does not place each layer once.
    #[error("the plan places {placed} of {layers} layers")]
    Layers {
        /// The number of placed layers.
        placed: u64,
        /// The number of layers of the model.
        layers: usize,
    },
    /// The plan contains an unknown machine index.
    #[error("the plan uses an unknown machine index")]
    UnknownMachine,
    /// The plan uses a machine twice.
    #[error("the plan uses '{0}' twice")]
    DuplicateMachine(String),
    /// The plan exceeds the maximum number of layers of a machine.
    #[error("the plan assigns more layers to '{0}' than the machine may hold")]
    TooManyLayers(String),
    /// The plan assigns zero layers to a machine.
    #[error("the plan assigns zero layers to '{0}'; leave the machine out")]
    NoLayers(String),
    /// The plan places the host after a worker.
    #[error("the host must hold the first layers")]
    HostNotFirst,
    /// The plan uses the host, which is not one of the machines.
    #[error("the plan places the output layer on the host, which is not one of the machines")]
    HostNotAvailable,
    /// The plan exceeds the memory of a machine.
    #[error("the plan needs {needed} bytes on '{machine}', which lends {lent}")]
    Memory {
        /// The machine.
        machine: String,
        /// The bytes that the plan needs on the machine.
        needed: u64,
        /// The bytes that the machine lends.
        lent: u64,
    },
    /// The plan uses more workers than llama.cpp supports.
    #[error("the plan uses {0} workers; llama.cpp supports {MAX_WORKERS}")]
    TooManyWorkers(usize),
    /// The plan uses a worker without a tunnel.
    #[error("a worker of the plan has no tunnel")]
    NoTunnel,
    /// A tensor override names a worker without layers.
    #[error(
        "`override_tensors` places '{pattern}' on the worker '{worker}', which has no layers in this plan"
    )]
    Override {
        /// The pattern of the tensor names.
        pattern: String,
        /// The worker.
        worker: String,
    },
}

/// The layers that one machine holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LayerAssignment {
    /// The name of the machine.
    pub machine: String,
    /// The index of the first layer, from 0.
    pub first: u32,
    /// The number of layers.
    pub layers: u32,
    /// The size of the layers' weights in bytes.
    pub weights: u64,
    /// The size of the layers' KV cache and recurrent states for all sequences, in bytes.
    pub cache: u64,
    /// True when the machine also holds the output layer.
    pub output: bool,
}

/// Returns the possible context lengths of this pool, the longest first. The pool uses the first one that fits.
///
/// A length in the script is the only candidate. Otherwise the candidates are the model's trained length, and halves of
/// it down to [`MIN_CONTEXT_TOKENS`].
pub(crate) fn context_candidates(spec: &PoolSpec, model: &ModelShape) -> Vec<u32> {
    if let Some(context) = spec.context.filter(|context| *context > 0) {
        return vec![context];
    }
    let trained = if model.trained_context == 0 { MIN_CONTEXT_TOKENS } else { model.trained_context };
    let halves = std::iter::successors(Some(trained), |context| Some(context / 2));
    let mut candidates: Vec<u32> = halves.take_while(|context| *context >= MIN_CONTEXT_TOKENS).collect();
    if candidates.is_empty() {
        candidates.push(trained);
    }
    candidates
}

/// The shape of the model for sequences of `context` tokens.
pub(crate) fn shape(spec: &PoolSpec, model: &ModelShape, context: u32) -> Shape {
    let context = u64::from(context.next_multiple_of(CONTEXT_MULTIPLE));
    let layer = |layer: &LayerShape| Layer {
        weights: layer.weight_bytes,
        cache: layer.pooled_cache_bytes(context, spec.slots),
    };
    let row = u64::from(model.embedding_length) * 8 + u64::from(model.feed_forward_length) * 3;
    // Flash attention needs its mask in 32 and 16 bits. Without it, each head needs the scores of each row.
    let attention = if FLASH_ATTENTION { context * 3 / 2 } else { u64::from(model.head_count) * context };
    Shape {
        layers: model.layers.iter().map(layer).collect(),
        output: model.output_bytes,
        logits: u64::from(model.vocabulary_size) * F32_BYTES,
        activations: u64::from(model.embedding_length) * F32_BYTES,
        compute_buffer: MAX_PASS_ROWS * (row + attention) * F32_BYTES,
        output_buffer: MAX_PASS_ROWS * u64::from(model.vocabulary_size) * F32_BYTES,
    }
}

/// Checks a plan. An invalid plan of a plugin must not reach the engine.
///
/// # Errors
///
/// Returns [`InvalidPlan`] for the first mistake.
pub(crate) fn check_plan(plan: &Plan, shape: &Shape, machines: &[Machine]) -> Result<(), InvalidPlan> {
    let placed_layers: u64 = plan.assignments.iter().map(|assignment| u64::from(assignment.layers)).sum();
    if placed_layers != shape.layers.len() as u64 {
        return Err(InvalidPlan::Layers { placed: placed_layers, layers: shape.layers.len() });
    }
    let mut used = vec![false; machines.len()];
    for (index, assignment) in plan.assignments.iter().enumerate() {
        let machine = machines.get(assignment.machine as usize).ok_or(InvalidPlan::UnknownMachine)?;
        if std::mem::replace(&mut used[assignment.machine as usize], true) {
            return Err(InvalidPlan::DuplicateMachine(machine.name.clone()));
        }
        if assignment.layers > machine.max_layers {
            return Err(InvalidPlan::TooManyLayers(machine.name.clone()));
        }
        if assignment.layers == 0 {
            return Err(InvalidPlan::NoLayers(machine.name.clone()));
        }
        if machine.is_host && index > 0 {
            return Err(InvalidPlan::HostNotFirst);
        }
    }
    if plan.output_on_host && !machines.iter().any(|machine| machine.is_host) {
        return Err(InvalidPlan::HostNotAvailable);
    }
    for assignment in assignments(plan, shape, machines) {
        let machine = machines.iter().find(|machine| machine.name == assignment.machine);
        // An assignment without layers already counts the output layer as its weights.
        let output_weights = if assignment.layers > 0 { shape.output } else { 0 };
        let output = if assignment.output { output_weights + shape.output_buffer } else { 0 };
        let needed = assignment.weights + assignment.cache + output + shape.compute_buffer;
        if let Some(machine) = machine.filter(|machine| needed > machine.memory) {
            let (machine, lent) = (machine.name.clone(), machine.memory);
            return Err(InvalidPlan::Memory { machine, needed, lent });
        }
    }
    let workers =
        plan.assignments.iter().filter(|assignment| !machines[assignment.machine as usize].is_host).count();
    if workers > MAX_WORKERS {
        return Err(InvalidPlan::TooManyWorkers(workers));
    }
    Ok(())
}

/// The layers of each machine in a plan that was checked.
pub(crate) fn assignments(plan: &Plan, shape: &Shape, machines: &[Machine]) -> Vec<LayerAssignment> {
    let mut first = 0;
    let mut assignments = Vec::new();
    for (index, assignment) in plan.assignments.iter().enumerate() {
        let layers = &shape.layers[first as usize..(first + assignment.layers) as usize];
        let is_last = index + 1 == plan.assignments.len();
        assignments.push(LayerAssignment {
            machine: machines[assignment.machine as usize].name.clone(),
            first,
            layers: assignment.layers,
            weights: layers.iter().map(|layer| layer.weights).sum(),
            cache: layers.iter().map(|layer| layer.cache).sum(),
            output: is_last && !plan.output_on_host,
        });
        first += assignment.layers;
    }
    if let Some(host) = machines.iter().find(|machine| machine.is_host).filter(|_| plan.output_on_host) {
        match assignments.iter_mut().find(|assignment| assignment.machine == host.name) {
            Some(assignment) => assignment.output = true,
            None => assignments.push(LayerAssignment {
                machine: host.name.clone(),
                first,
                layers: 0,
                weights: shape.output,
                cache: 0,
                output: true,
            }),
        }
    }
    assignments
}

/// Returns the engine's configuration for a plan. `endpoint` returns the tunnel's address for a machine index.
pub(crate) fn pool_config(
    plan: &Plan,
    machines: &[Machine],
    endpoint: impl Fn(usize) -> Option<SocketAddr>,
    overrides: &[(String, Option<String>)],
) -> Result<PoolConfig, InvalidPlan> {
    let mut config = PoolConfig { output_on_host: plan.output_on_host, ..PoolConfig::default() };
    let mut names = Vec::new();
    for assignment in &plan.assignments {
        let machine = &machines[assignment.machine as usize];
        if machine.is_host {
            config.host_layers = assignment.layers;
            continue;
        }
        let endpoint = endpoint(assignment.machine as usize).ok_or(InvalidPlan::NoTunnel)?;
        config.workers.push(PoolWorker { endpoint: endpoint.to_string(), layers: assignment.layers });
        names.push(machine.name.as_str());
    }
    for (pattern, worker) in overrides {
        let position = |name: &String| names.iter().position(|candidate| candidate == name);
        let worker =
            match worker {
                None => None,
                Some(name) => Some(position(name).ok_or_else(|| InvalidPlan::Override {
                    pattern: pattern.clone(),
                    worker: name.clone(),
                })?),
            };
        config.tensor_overrides.push(TensorOverride { pattern: pattern.clone(), worker });
    }
    Ok(config)
}

/// The patterns of `override_tensors` that match no tensor of the model. Patterns that only llama.cpp's syntax of
/// expressions has are not checked.
pub(crate) fn unused_overrides<'a>(
    overrides: &'a [(String, Option<String>)],
    model: &ModelShape,
) -> Vec<&'a str> {
    let matches_nothing = |pattern: &&str| {
        let pattern = RegexBuilder::new(pattern).unicode(false).build();
        pattern.is_ok_and(|pattern| !model.tensor_names.iter().any(|name| pattern.is_match(name.as_bytes())))
    };
    overrides.iter().map(|(pattern, _)| pattern.as_str()).filter(matches_nothing).collect()
}

/// The message for a model that does not fit, with the remedies.
pub(crate) fn shortage_message(shortage: &Shortage, shape: &Shape, machines: &[Machine]) -> String {
    let size = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    let weights: u64 = shape.layers.iter().map(|layer| layer.weights).sum::<u64>() + shape.output;
    let cache: u64 = shape.layers.iter().map(|layer| layer.cache).sum();
    let lent = |machine: &Machine| format!("{} lends {}", machine.name, size(machine.memory));
    let lent: Vec<String> = machines.iter().filter(|machine| machine.max_layers > 0).map(lent).collect();
    format!(
        "the model does not fit: {} are missing, and {} of {} layers would fit. The weights need {}, the KV cache of all sequences {}, compute buffers {} per machine and {} more with the output layer; {}. Add a worker, lend more with --max-memory, or lower `context` or `slots`",
        size(shortage.missing),
        shortage.fits,
        shape.layers.len(),
        size(weights),
        size(cache),
        size(shape.compute_buffer),
        size(shape.output_buffer),
        lent.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use tightwad_modes::Assignment;

    use super::*;

    fn machine(name: &str, is_host: bool) -> Machine {
        Machine {
            name: name.to_owned(),
            memory: 1 << 30,
            memory_bandwidth: 0,
            link_bandwidth: 0,
            round_trip_ns: 0,
            is_host,
            max_layers: 8,
        }
    }

    fn sample() -> (Shape, Vec<Machine>) {
        let layers = vec![Layer { weights: 10, cache: 1 }; 4];
        let shape =
            Shape { layers, output: 7, logits: 4, activations: 4, compute_buffer: 0, output_buffer: 0 };
        (shape, vec![machine("host", true), machine("a", false), machine("b", false)])
    }

    fn plan(assignments: &[(u32, u32)], output_on_host: bool) -> Plan {
        let assignments =
            assignments.iter().map(|(machine, layers)| Assignment { machine: *machine, layers: *layers });
        Plan { assignments: assignments.collect(), output_on_host, time_per_token_ns: 0 }
    }

    #[test]
    fn check_plan_refuses_invalid_plans() {
        let (shape, machines) = sample();
        let message = |assigned, output| {
            check_plan(&plan(assigned, output), &shape, &machines).unwrap_err().to_string()
        };
        assert!(message(&[(1, 3)], true).contains("3 of 4"));
        assert!(message(&[(9, 4)], true).contains("unknown machine"));
        assert!(message(&[(1, 2), (1, 2)], true).contains("twice"));
        assert!(message(&[(1, 2), (0, 2)], true).contains("first"));
        assert!(message(&[(1, 4), (2, 0)], true).contains("leave the machine out"));
        let mut small = machines.clone();
        small[1].memory = 40;
        let error = check_plan(&plan(&[(1, 4)], true), &shape, &small).unwrap_err();
        assert!(error.to_string().contains("which lends 40"));
        assert!(check_plan(&plan(&[(0, 1), (2, 2), (1, 1)], true), &shape, &machines).is_ok());
        assert!(check_plan(&plan(&[(1, 4)], true), &shape, &machines[1..]).is_err());
    }

    #[test]
    fn pool_config_follows_the_plan() {
        let (shape, machines) = sample();
        let plan = plan(&[(0, 1), (2, 2), (1, 1)], true);
        let endpoint = |machine: usize| Some(SocketAddr::from(([127, 0, 0, 1], machine as u16)));
        let overrides = [("exps".to_owned(), Some("a".to_owned())), ("head".to_owned(), None)];
        let config = pool_config(&plan, &machines, endpoint, &overrides).unwrap();
        assert_eq!(config.host_layers, 1);
        assert_eq!(config.workers[0], PoolWorker { endpoint: "127.0.0.1:2".to_owned(), layers: 2 });
        assert_eq!(config.tensor_overrides[0].worker, Some(1));
        assert_eq!(config.tensor_overrides[1].worker, None);
        let assignments = assignments(&plan, &shape, &machines);
        assert_eq!((assignments[1].first, assignments[1].weights), (1, 20));
        assert!(assignments[0].output && !assignments[2].output);
        let gone = [("exps".to_owned(), Some("gone".to_owned()))];
        let error = pool_config(&plan, &machines, endpoint, &gone).unwrap_err();
        assert!(error.to_string().contains("'gone'"));
    }

    #[test]
    fn overrides_that_match_no_tensor_are_found() {
        let model = ModelShape {
            architecture: "llama".to_owned(),
            layers: Vec::new(),
            embedding_bytes: 0,
            output_bytes: 0,
            embedding_length: 0,
            head_count: 0,
            feed_forward_length: 0,
            vocabulary_size: 0,
            trained_context: 0,
            tensor_names: vec!["blk.12.ffn_up_exps.weight".to_owned()],
        };
        // The last pattern has a syntax that only llama.cpp's expressions have.
        let patterns = ["ffn_.*_exps", r"blk\.\d+\.", "ffn_nothing", "", "(?=ffn_nothing)"];
        let overrides = patterns.map(|pattern| (pattern.to_owned(), None));
        assert_eq!(unused_overrides(&overrides, &model), ["ffn_nothing"]);
    }
}
