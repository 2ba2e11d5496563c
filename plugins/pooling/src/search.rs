//! Places a model: validates the arguments, searches, and keeps the previous plan if it is nearly as good.

use tightwad_plugin_sdk::{Assignment, Machine, Plan, Refusal, Shape};

use crate::layer_dp::Placement;
use crate::problem::Problem;
use crate::{capacity, cost, exact, hysteresis, local_search};

/// The greatest number of workers that llama.cpp supports.
pub const MAX_WORKERS: usize = 16;

/// The steps of a search, at most. A step takes a few nanoseconds.
const MAX_STEPS: usize = 1_000_000;

/// Places the layers of `shape` on `machines`, as in `previous` if that is nearly as good.
///
/// # Errors
///
/// [`Refusal::TooBig`] if the memory is not enough, [`Refusal::Other`] if the arguments are invalid.
pub fn place(shape: &Shape, machines: &[Machine], previous: Option<&Plan>) -> Result<Plan, Refusal> {
    validate(shape, machines).map_err(Refusal::Other)?;
    let problem = Problem::new(shape, machines);
    let placement = if exact::steps(&problem) <= MAX_STEPS {
        exact::best(&problem)
    } else {
        local_search::best(&problem, MAX_STEPS)
    };
    let Some(placement) = placement else {
        return Err(Refusal::TooBig(capacity::shortage(&problem, shape, machines)));
    };
    let best = plan(&problem, shape, machines, &placement);
    let kept = previous.and_then(|previous| {
        hysteresis::keep_previous(&problem, shape, machines, previous, best.time_per_token)
    });
    Ok(kept.unwrap_or(best))
}

/// Checks the arguments. The error is a text for the user.
fn validate(shape: &Shape, machines: &[Machine]) -> Result<(), String> {
    let layers = shape.layers.len();
    let hosts = machines.iter().filter(|machine| machine.is_host).count();
    let workers = machines.len() - hosts;
    if layers == 0 {
        return Err("the model has no layers".to_owned());
    }
    if machines.is_empty() {
        return Err("there is no machine for the model".to_owned());
    }
    if hosts > 1 {
        return Err(format!("{hosts} machines are marked as the host. Mark only one."));
    }
    if workers > MAX_WORKERS {
        return Err(format!("a pool has at most {MAX_WORKERS} workers, not {workers}. Leave some out."));
    }
    if total_bytes(shape).is_none() {
        return Err("the model's sizes add up to more than 2^64 bytes".to_owned());
    }
    let allowed: usize = machines.iter().map(|machine| (machine.max_layers as usize).min(layers)).sum();
    if allowed < layers {
        return Err(format!("the machines may hold {allowed} of the {layers} layers. Raise their limits."));
    }
    Ok(())
}

/// The bytes of the model and its buffers. `None`: more than 2^64.
fn total_bytes(shape: &Shape) -> Option<u64> {
    let layers = shape.layers.iter().flat_map(|layer| [layer.weights, layer.cache]);
    let mut sizes = layers.chain([shape.output, shape.compute_buffer, shape.output_buffer]);
    sizes.try_fold(0_u64, u64::checked_add)
}

fn plan(problem: &Problem, shape: &Shape, machines: &[Machine], placement: &Placement) -> Plan {
    let host = problem.host.filter(|_| placement.host_layers > 0).map(|host| (host, placement.host_layers));
    let workers = placement.runs.iter().map(|(worker, layers)| (problem.workers[*worker].machine, *layers));
    let assignments: Vec<Assignment> = host
        .into_iter()
        .chain(workers)
        .map(|(machine, layers)| Assignment { machine: machine as u32, layers: layers as u32 })
        .collect();
    let time_per_token =
        cost::time_per_token(shape, machines, &assignments, placement.output_on_host).round() as u64;
    Plan { assignments, output_on_host: placement.output_on_host, time_per_token }
}
