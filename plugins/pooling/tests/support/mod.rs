//! Shared by the tests: shapes, machines, random numbers, and all plans of a small problem.
// Each test uses a part of it.
#![allow(dead_code)]

use tightwad_plugin_sdk::{Assignment, Layer, Machine, Plan, Refusal, Shape};
use tightwad_pooling::search;

/// Places a model for the first time.
pub fn place(shape: &Shape, machines: &[Machine]) -> Result<Plan, Refusal> {
    search::place(shape, machines, None)
}

/// A linear congruential generator.
pub struct Rng(pub u64);

impl Rng {
    /// A number less than `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// A number from `low` to `high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
}

pub fn machine(
    name: &str,
    memory: u64,
    memory_bandwidth: u64,
    link_bandwidth: u64,
    round_trip: u64,
) -> Machine {
    let name = name.to_owned();
    Machine {
        name,
        memory,
        memory_bandwidth,
        link_bandwidth,
        round_trip,
        is_host: false,
        max_layers: u32::MAX,
    }
}

pub fn host(memory: u64, memory_bandwidth: u64) -> Machine {
    Machine { is_host: true, ..machine("host", memory, memory_bandwidth, 0, 0) }
}

/// Layers of equal sizes.
pub fn uniform(layers: usize, weights: u64, cache: u64, output: u64, compute_buffer: u64) -> Shape {
    let layers = vec![Layer { weights, cache }; layers];
    Shape { layers, output, logits: 600_000, activations: 16_000, compute_buffer, output_buffer: 0 }
}

/// A random problem of up to four machines and `layers` layers.
pub fn random_problem(rng: &mut Rng, workers: u64, layers: u64) -> (Shape, Vec<Machine>) {
    let mega = 1_000_000;
    let uneven = rng.below(3);
    let layers: Vec<Layer> = (0..layers)
        .map(|_| Layer {
            weights: rng.range(100 - 45 * uneven, 100 + 60 * uneven) * mega,
            cache: rng.range(10, 10 + 30 * uneven) * mega,
        })
        .collect();
    let shape = Shape {
        output: rng.range(0, 200) * mega,
        logits: rng.range(1, 600_000),
        activations: rng.range(1, 16_000),
        compute_buffer: rng.range(0, 30) * mega,
        output_buffer: rng.range(0, 60) * mega,
        layers,
    };
    let ample = rng.range(2, 14) * mega;
    let mut machines: Vec<Machine> = (0..workers)
        .map(|at| {
            let mut own = machine(
                &format!("w{at}"),
                rng.range(20, 100) * ample,
                rng.below(5) * 3_000 * mega,
                [0, 12, 120, 1_200][rng.below(4) as usize] * mega,
                rng.range(50, 5_000) * [1, 10, 1_000][rng.below(3) as usize],
            );
            if rng.below(6) == 0 {
                own.max_layers = rng.below(4) as u32;
            }
            own
        })
        .collect();
    if rng.below(4) > 0 {
        let mut own = host(rng.range(0, 100) * ample, rng.below(5) * 2_000 * mega);
        if rng.below(4) == 0 {
            own.max_layers = rng.below(3) as u32;
        }
        machines.insert(rng.below(workers + 1) as usize, own);
    }
    (shape, machines)
}

/// The cost of a plan in nanoseconds per token. `None`: the plan does not fit, or is invalid. It is independent of
/// the component's code.
pub fn reference_cost(
    shape: &Shape,
    machines: &[Machine],
    assignments: &[Assignment],
    output_on_host: bool,
) -> Option<f64> {
    let known = |values: Vec<u64>, default: u64| {
        let mut values: Vec<u64> = values.into_iter().filter(|value| *value > 0).collect();
        values.sort_unstable();
        if values.is_empty() { default } else { values[(values.len() - 1) / 2] }
    };
    let memory_bandwidth = known(machines.iter().map(|m| m.memory_bandwidth).collect(), 5_000_000_000);
    let links = machines.iter().filter(|m| !m.is_host).map(|m| m.link_bandwidth).collect();
    let link_bandwidth = known(links, 100_000_000);
    let or = |value: u64, other: u64| if value == 0 { other as f64 } else { value as f64 };
    let mut at = 0;
    let mut seconds = 0.0;
    let mut output_placed = false;
    for (index, machine) in machines.iter().enumerate() {
        let position = assignments.iter().position(|assignment| assignment.machine as usize == index);
        let is_last = position == Some(assignments.len() - 1);
        let holds_output = if machine.is_host { output_on_host } else { !output_on_host && is_last };
        if machine.is_host && position.is_some_and(|position| position != 0) {
            return None;
        }
        if position.is_none() && !holds_output {
            continue;
        }
        let before: usize =
            assignments[..position.unwrap_or(0)].iter().map(|assignment| assignment.layers as usize).sum();
        let count = position.map_or(0, |position| assignments[position].layers as usize);
        let own = shape.layers.get(before..before + count)?;
        let weights: u64 = own.iter().map(|layer| layer.weights).sum();
        let cache: u64 = own.iter().map(|layer| layer.cache).sum();
        let output_bytes = if holds_output { shape.output } else { 0 };
        let output_memory = if holds_output { shape.output + shape.output_buffer } else { 0 };
        if weights + cache + shape.compute_buffer + output_memory > machine.memory
            || count > machine.max_layers as usize
        {
            return None;
        }
        seconds += (weights + output_bytes) as f64 / or(machine.memory_bandwidth, memory_bandwidth);
        if !machine.is_host {
            let back = if holds_output { shape.logits } else { shape.activations };
            seconds += machine.round_trip as f64 / 1e9;
            seconds += (shape.activations + back) as f64 / or(machine.link_bandwidth, link_bandwidth);
        }
        at += count;
        output_placed |= holds_output;
    }
    (at == shape.layers.len() && output_placed).then_some(seconds * 1e9)
}

/// The least cost of all plans; tries all orders and all cuts. `None`: no plan fits.
pub fn brute_force(shape: &Shape, machines: &[Machine]) -> Option<f64> {
    let mut least = None;
    let mut assignments = Vec::new();
    let host = machines.iter().position(|machine| machine.is_host);
    each_plan(machines, shape.layers.len(), &mut assignments, &mut |assignments| {
        for output_on_host in [false, true] {
            if host.is_none() && output_on_host {
                continue;
            }
            if let Some(cost) = reference_cost(shape, machines, assignments, output_on_host) {
                least = Some(least.map_or(cost, |least: f64| least.min(cost)));
            }
        }
    });
    least
}

/// Calls `visit` with every way to assign `left` layers after `assignments`.
fn each_plan(
    machines: &[Machine],
    left: usize,
    assignments: &mut Vec<Assignment>,
    visit: &mut impl FnMut(&[Assignment]),
) {
    if left == 0 {
        return visit(assignments);
    }
    for machine in 0..machines.len() as u32 {
        if assignments.iter().any(|assignment| assignment.machine == machine) {
            continue;
        }
        for layers in 1..=left {
            assignments.push(Assignment { machine, layers: layers as u32 });
            each_plan(machines, left - layers, assignments, visit);
            assignments.pop();
        }
    }
}

/// Checks a plan and its time per token. Returns its cost.
pub fn check_plan(shape: &Shape, machines: &[Machine], plan: &Plan) -> f64 {
    let cost = reference_cost(shape, machines, &plan.assignments, plan.output_on_host);
    let cost = cost.unwrap_or_else(|| panic!("does not fit: {plan:?}\n{shape:?}\n{machines:?}"));
    assert!(plan.assignments.iter().all(|assignment| assignment.layers > 0));
    assert!(
        (plan.time_per_token as f64 - cost).abs() <= 1.0 + cost * 1e-9,
        "{} is not {cost}",
        plan.time_per_token
    );
    cost
}
