//! The capacity of sets of workers, independent of the cost. A machine that takes as many layers as it can never
//! leaves less room for the others. So one number per set of workers is enough: the layers that the set covers in
//! its best order.

use tightwad_plugin_sdk::{Machine, Shape, Shortage};

use crate::problem::Problem;

/// For each set of workers: the greatest number of layers, from the first on, that the host and the set can hold.
#[must_use]
pub fn covered_layers(problem: &Problem, host_layers: usize) -> Vec<usize> {
    let count = problem.workers.len();
    let mut covered_layers = vec![host_layers; 1 << count];
    for set in 1..1_usize << count {
        for (bit, worker) in problem.workers.iter().enumerate() {
            if set >> bit & 1 == 1 {
                covered_layers[set] = covered_layers[set].max(worker.max_end[covered_layers[set ^ 1 << bit]]);
            }
        }
    }
    covered_layers
}

/// An order of the workers in which everything fits.
#[must_use]
pub fn feasible_order(problem: &Problem) -> Option<Vec<usize>> {
    let all = (1_usize << problem.workers.len()) - 1;
    for host_part in &problem.host_parts {
        let covered_layers = covered_layers(problem, host_part.max_layers);
        if host_part.output_on_host {
            if covered_layers[all] == problem.layer_count {
                return Some(unfold(problem, &covered_layers, all));
            }
            continue;
        }
        for (bit, worker) in problem.workers.iter().enumerate() {
            let others = all ^ 1 << bit;
            if worker.first_layer_with_output < problem.layer_count
                && worker.first_layer_with_output <= covered_layers[others]
            {
                let mut order = unfold(problem, &covered_layers, others);
                order.push(bit);
                return Some(order);
            }
        }
    }
    None
}

/// The order in which a set covers its number of layers.
fn unfold(problem: &Problem, covered_layers: &[usize], mut set: usize) -> Vec<usize> {
    let mut order = Vec::new();
    while set != 0 {
        let within = |bit: &usize| set >> bit & 1 == 1;
        let last = (0..problem.workers.len()).filter(within).find(|bit| {
            let before = covered_layers[set ^ 1 << bit];
            // A worker that adds nothing may come last, too.
            problem.workers[*bit].max_end[before].max(before) == covered_layers[set]
        });
        let Some(last) = last else { break };
        order.push(last);
        set ^= 1 << last;
    }
    order.reverse();
    order
}

/// The missing memory, if nothing fits. It is the least that one worker needs in addition to take all layers that the
/// others leave. Without workers, the host takes all layers.
#[must_use]
pub fn shortage(problem: &Problem, shape: &Shape, machines: &[Machine]) -> Shortage {
    let layers = problem.layer_count;
    let all = (1_usize << problem.workers.len()) - 1;
    let mut fits = 0;
    let mut missing = None;
    let mut record_lack = |machine: usize, needs: u64, layers: usize| {
        let machine = &machines[machine];
        let more = (shape.compute_buffer + needs).saturating_sub(machine.memory);
        if layers <= machine.max_layers as usize && missing.is_none_or(|least| more < least) {
            missing = Some(more);
        }
    };
    for host_part in &problem.host_parts {
        let covered_layers = covered_layers(problem, host_part.max_layers);
        fits = fits.max(covered_layers[all]);
        let output_memory = if host_part.output_on_host { 0 } else { problem.output_memory };
        for (bit, worker) in problem.workers.iter().enumerate() {
            // The machine with the output head needs a layer.
            let from = covered_layers[all ^ 1 << bit].min(layers - 1);
            record_lack(
                worker.machine,
                problem.memory_before[layers] - problem.memory_before[from] + output_memory,
                layers - from,
            );
        }
    }
    if let Some(host) = problem.host.filter(|_| problem.workers.is_empty()) {
        record_lack(host, problem.memory_before[layers] + problem.output_memory, layers);
    }
    // No machine may hold that many layers: several have to share the rest.
    let left = problem.memory_before[layers] - problem.memory_before[fits] + problem.output_memory;
    Shortage { missing: missing.unwrap_or(left), fits: fits as u32 }
}
