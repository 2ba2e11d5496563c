//! Staying with the plan of the last time.

use tightwad_plugin_sdk::{Machine, Plan, Shape};

use crate::cost;
use crate::problem::Problem;

/// A plan is kept while its token takes at most this many times the best plan's. To leave it means to
/// send gigabytes of weights again, for a gain that may be none: two looks at the same machine's speed
/// differ by about as much.
pub const SLACK: f64 = 1.15;

/// `before` with the token time that it has now, where it still fits and is nearly as good as the best
/// plan, whose token takes `best` nanoseconds.
#[must_use]
pub fn kept(
    problem: &Problem,
    shape: &Shape,
    machines: &[Machine],
    before: &Plan,
    best: u64,
) -> Option<Plan> {
    if !fits(problem, shape, machines, before) {
        return None;
    }
    let token = cost::token(shape, machines, &before.assignments, before.output_on_host).round();
    (token <= best as f64 * SLACK).then(|| Plan { time_per_token: token as u64, ..before.clone() })
}

/// Whether a plan of another time keeps to the contract and to what the machines lend now. As it names
/// each machine once, it has no more workers than there are: not too many.
fn fits(problem: &Problem, shape: &Shape, machines: &[Machine], plan: &Plan) -> bool {
    let mut used = vec![false; machines.len()];
    let mut placed = 0;
    for (at, share) in plan.assignments.iter().enumerate() {
        let (index, layers) = (share.machine as usize, share.layers as usize);
        let Some(machine) = machines.get(index) else { return false };
        let again = std::mem::replace(&mut used[index], true);
        let last = !plan.output_on_host && at + 1 == plan.assignments.len();
        let head = last || (plan.output_on_host && machine.is_host);
        if again || (machine.is_host && at > 0) || layers == 0 || share.layers > machine.max_layers {
            return false;
        }
        // Not as a sum: 32 bits may not hold it.
        if layers > problem.layers - placed {
            return false;
        }
        let own = problem.memory[placed + layers] - problem.memory[placed];
        if own + alongside(problem, shape, head) > machine.memory {
            return false;
        }
        placed += layers;
    }
    // A host without layers may hold the head.
    let host = machines.iter().find(|machine| machine.is_host);
    let head = host.is_some_and(|host| alongside(problem, shape, true) <= host.memory);
    placed == problem.layers && (head || !plan.output_on_host)
}

/// Bytes that a machine of the plan needs besides its layers.
fn alongside(problem: &Problem, shape: &Shape, head: bool) -> u64 {
    shape.compute_buffer + if head { problem.head_memory } else { 0 }
}
