//! From a question to a plan.

use tightwad_plugin_sdk::{Assignment, Machine, Plan, Refusal, Shape};

use crate::chain::Found;
use crate::problem::Problem;
use crate::{climb, cost, exact, keep, room};

/// Most workers that llama.cpp takes.
pub const WORKERS: usize = 16;

/// Steps that a search may take; one is a few nanoseconds.
const STEPS: usize = 1_000_000;

/// Places the layers of `shape` on `machines`; as `before`, where that is nearly as good.
///
/// # Errors
///
/// [`Refusal::TooBig`] when the memory is not enough, [`Refusal::Other`] when the question makes no
/// sense.
pub fn place(shape: &Shape, machines: &[Machine], before: Option<&Plan>) -> Result<Plan, Refusal> {
    check(shape, machines).map_err(Refusal::Other)?;
    let problem = Problem::new(shape, machines);
    let found =
        if exact::steps(&problem) <= STEPS { exact::best(&problem) } else { climb::best(&problem, STEPS) };
    let Some(found) = found else {
        return Err(Refusal::TooBig(room::shortage(&problem, shape, machines)));
    };
    let best = plan(&problem, shape, machines, &found);
    let kept = before.and_then(|before| keep::kept(&problem, shape, machines, before, best.time_per_token));
    Ok(kept.unwrap_or(best))
}

/// Says what is wrong with a question.
fn check(shape: &Shape, machines: &[Machine]) -> Result<(), String> {
    let layers = shape.layers.len();
    let hosts = machines.iter().filter(|machine| machine.is_host).count();
    let workers = machines.len() - hosts;
    if layers == 0 {
        return Err("the model has no layers".to_owned());
    }
    if machines.is_empty() {
        return Err("there is no machine to place the model on".to_owned());
    }
    if hosts > 1 {
        return Err(format!("{hosts} machines are marked as the host itself; only one can be"));
    }
    if workers > WORKERS {
        return Err(format!("a pool takes at most {WORKERS} workers, not {workers}: leave some out"));
    }
    if total(shape).is_none() {
        return Err("the model's sizes add up to more than 2^64 bytes".to_owned());
    }
    let most: usize = machines.iter().map(|machine| (machine.max_layers as usize).min(layers)).sum();
    if most < layers {
        return Err(format!("the machines may hold {most} of the {layers} layers: raise their limits"));
    }
    Ok(())
}

/// Bytes of everything.
fn total(shape: &Shape) -> Option<u64> {
    let layers = shape.layers.iter().flat_map(|layer| [layer.weights, layer.cache]);
    let mut sizes = layers.chain([shape.output, shape.compute_buffer, shape.output_buffer]);
    sizes.try_fold(0_u64, u64::checked_add)
}

fn plan(problem: &Problem, shape: &Shape, machines: &[Machine], found: &Found) -> Plan {
    let here = problem.here.filter(|_| found.at_here > 0).map(|here| (here, found.at_here));
    let workers = found.runs.iter().map(|(worker, layers)| (problem.workers[*worker].machine, *layers));
    let assignments: Vec<Assignment> = here
        .into_iter()
        .chain(workers)
        .map(|(machine, layers)| Assignment { machine: machine as u32, layers: layers as u32 })
        .collect();
    let time_per_token = cost::token(shape, machines, &assignments, found.head_here).round() as u64;
    Plan { assignments, output_on_host: found.head_here, time_per_token }
}
