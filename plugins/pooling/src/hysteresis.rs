//! Keeping the previous plan.

use tightwad_plugin_sdk::{Machine, Plan, Shape};

use crate::cost;
use crate::problem::Problem;

/// A plan is kept while its token takes at most this factor of the best plan's. A new plan sends gigabytes of weights
/// again, and its gain may be noise: two measurements of one machine's speed differ by about this factor.
pub const MAX_SLOWDOWN: f64 = 1.15;

/// Returns `previous` with its current time per token, if it fits and is nearly as good as the best plan. A token of
/// the best plan takes `best` nanoseconds.
#[must_use]
pub fn keep_previous(
    problem: &Problem,
    shape: &Shape,
    machines: &[Machine],
    previous: &Plan,
    best: u64,
) -> Option<Plan> {
    if !fits(problem, shape, machines, previous) {
        return None;
    }
    let time = cost::time_per_token(shape, machines, &previous.assignments, previous.output_on_host).round();
    (time <= best as f64 * MAX_SLOWDOWN).then(|| Plan { time_per_token: time as u64, ..previous.clone() })
}

/// True if an earlier plan keeps the contract and fits the memory that the machines lend now. It names each machine
/// once, so it cannot have too many workers.
fn fits(problem: &Problem, shape: &Shape, machines: &[Machine], plan: &Plan) -> bool {
    let mut used = vec![false; machines.len()];
    let mut placed = 0;
    for (at, assignment) in plan.assignments.iter().enumerate() {
        let (index, layers) = (assignment.machine as usize, assignment.layers as usize);
        let Some(machine) = machines.get(index) else { return false };
        let twice = std::mem::replace(&mut used[index], true);
        let is_last = at + 1 == plan.assignments.len();
        let holds_output = if plan.output_on_host { machine.is_host } else { is_last };
        if twice || (machine.is_host && at > 0) || layers == 0 || assignment.layers > machine.max_layers {
            return false;
        }
        // A sum could exceed 32 bits.
        if layers > problem.layer_count - placed {
            return false;
        }
        let own = problem.memory_before[placed + layers] - problem.memory_before[placed];
        if own + extra_memory(problem, shape, holds_output) > machine.memory {
            return false;
        }
        placed += layers;
    }
    // A host without layers may hold the output head.
    let host = machines.iter().find(|machine| machine.is_host);
    let host_fits = host.is_some_and(|host| extra_memory(problem, shape, true) <= host.memory);
    placed == problem.layer_count && (host_fits || !plan.output_on_host)
}

/// The bytes that a machine of the plan needs in addition to its layers.
fn extra_memory(problem: &Problem, shape: &Shape, holds_output: bool) -> u64 {
    shape.compute_buffer + if holds_output { problem.output_memory } else { 0 }
}
