//! What fits at all, whatever it costs. A machine that takes as many layers as it can never leaves less
//! room for the others, so one number a set of workers says everything: how many layers it covers in
//! its best order.

use tightwad_plugin_sdk::{Machine, Shape, Shortage};

use crate::problem::Problem;

/// For each set of workers: the most layers, from the first on, that the host and they can hold.
#[must_use]
pub fn covers(problem: &Problem, at_here: usize) -> Vec<usize> {
    let count = problem.workers.len();
    let mut covers = vec![at_here; 1 << count];
    for set in 1..1_usize << count {
        for (bit, worker) in problem.workers.iter().enumerate() {
            if set >> bit & 1 == 1 {
                covers[set] = covers[set].max(worker.reach[covers[set ^ 1 << bit]]);
            }
        }
    }
    covers
}

/// An order of the workers in which everything fits.
#[must_use]
pub fn order(problem: &Problem) -> Option<Vec<usize>> {
    let all = (1_usize << problem.workers.len()) - 1;
    for start in &problem.starts {
        let covers = covers(problem, start.most);
        if start.head_here {
            if covers[all] == problem.layers {
                return Some(unfold(problem, &covers, all));
            }
            continue;
        }
        for (bit, worker) in problem.workers.iter().enumerate() {
            let others = all ^ 1 << bit;
            if worker.low_head < problem.layers && worker.low_head <= covers[others] {
                let mut order = unfold(problem, &covers, others);
                order.push(bit);
                return Some(order);
            }
        }
    }
    None
}

/// The order that gave a set its number.
fn unfold(problem: &Problem, covers: &[usize], mut set: usize) -> Vec<usize> {
    let mut order = Vec::new();
    while set != 0 {
        let within = |bit: &usize| set >> bit & 1 == 1;
        let last = (0..problem.workers.len()).filter(within).find(|bit| {
            let before = covers[set ^ 1 << bit];
            // One that adds nothing may come last, too.
            problem.workers[*bit].reach[before].max(before) == covers[set]
        });
        let Some(last) = last else { break };
        order.push(last);
        set ^= 1 << last;
    }
    order.reverse();
    order
}

/// How far the memory is from enough, when nothing fits: the least that some worker would need besides
/// to take all that is left by the others, or the host where there are no workers.
#[must_use]
pub fn shortage(problem: &Problem, shape: &Shape, machines: &[Machine]) -> Shortage {
    let layers = problem.layers;
    let all = (1_usize << problem.workers.len()) - 1;
    let mut fits = 0;
    let mut missing = None;
    let mut lacks = |machine: usize, needs: u64, layers: usize| {
        let machine = &machines[machine];
        let more = (shape.compute_buffer + needs).saturating_sub(machine.memory);
        if layers <= machine.max_layers as usize && missing.is_none_or(|least| more < least) {
            missing = Some(more);
        }
    };
    for start in &problem.starts {
        let covers = covers(problem, start.most);
        fits = fits.max(covers[all]);
        let head = if start.head_here { 0 } else { problem.head_memory };
        for (bit, worker) in problem.workers.iter().enumerate() {
            // It needs a layer to hold the head.
            let from = covers[all ^ 1 << bit].min(layers - 1);
            lacks(worker.machine, problem.memory[layers] - problem.memory[from] + head, layers - from);
        }
    }
    if let Some(here) = problem.here.filter(|_| problem.workers.is_empty()) {
        lacks(here, problem.memory[layers] + problem.head_memory, layers);
    }
    // No machine may hold so many layers: what is left has to be shared.
    let left = problem.memory[layers] - problem.memory[fits] + problem.head_memory;
    Shortage { missing: missing.unwrap_or(left), fits: fits as u32 }
}
