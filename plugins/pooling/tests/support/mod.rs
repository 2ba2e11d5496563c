//! What the tests share: shapes, machines, chance, and all plans of a small question.
// Each test uses a part of it.
#![allow(dead_code)]

use tightwad_plugin_sdk::{Assignment, Layer, Machine, Plan, Refusal, Shape};
use tightwad_pooling::search;

/// Places a model for the first time.
pub fn place(shape: &Shape, machines: &[Machine]) -> Result<Plan, Refusal> {
    search::place(shape, machines, None)
}

/// A linear congruential generator.
pub struct Chance(pub u64);

impl Chance {
    /// Less than `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// From `low` to `high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
}

pub fn machine(name: &str, memory: u64, speed: u64, bandwidth: u64, round_trip: u64) -> Machine {
    let name = name.to_owned();
    Machine {
        name,
        memory,
        memory_bandwidth: speed,
        link_bandwidth: bandwidth,
        round_trip,
        is_host: false,
        max_layers: u32::MAX,
    }
}

pub fn host(memory: u64, speed: u64) -> Machine {
    Machine { is_host: true, ..machine("host", memory, speed, 0, 0) }
}

/// Layers of the same size.
pub fn uniform(layers: usize, weights: u64, cache: u64, output: u64, scratch: u64) -> Shape {
    let layers = vec![Layer { weights, cache }; layers];
    Shape { layers, output, logits: 600_000, activations: 16_000, compute_buffer: scratch, output_buffer: 0 }
}

/// A question of up to four machines and `layers` layers, in every respect as chance will have it.
pub fn question(chance: &mut Chance, workers: u64, layers: u64) -> (Shape, Vec<Machine>) {
    let mega = 1_000_000;
    let uneven = chance.below(3);
    let layers: Vec<Layer> = (0..layers)
        .map(|_| Layer {
            weights: chance.range(100 - 45 * uneven, 100 + 60 * uneven) * mega,
            cache: chance.range(10, 10 + 30 * uneven) * mega,
        })
        .collect();
    let shape = Shape {
        output: chance.range(0, 200) * mega,
        logits: chance.range(1, 600_000),
        activations: chance.range(1, 16_000),
        compute_buffer: chance.range(0, 30) * mega,
        output_buffer: chance.range(0, 60) * mega,
        layers,
    };
    let ample = chance.range(2, 14) * mega;
    let mut machines: Vec<Machine> = (0..workers)
        .map(|at| {
            let mut own = machine(
                &format!("w{at}"),
                chance.range(20, 100) * ample,
                chance.below(5) * 3_000 * mega,
                [0, 12, 120, 1_200][chance.below(4) as usize] * mega,
                chance.range(50, 5_000) * [1, 10, 1_000][chance.below(3) as usize],
            );
            if chance.below(6) == 0 {
                own.max_layers = chance.below(4) as u32;
            }
            own
        })
        .collect();
    if chance.below(4) > 0 {
        let mut own = host(chance.range(0, 100) * ample, chance.below(5) * 2_000 * mega);
        if chance.below(4) == 0 {
            own.max_layers = chance.below(3) as u32;
        }
        machines.insert(chance.below(workers + 1) as usize, own);
    }
    (shape, machines)
}

/// What a plan costs by the book; `None` when it does not fit, or is none. Written apart from the
/// component's own.
pub fn price(shape: &Shape, machines: &[Machine], shares: &[Assignment], output_here: bool) -> Option<f64> {
    let known = |values: Vec<u64>, default: u64| {
        let mut values: Vec<u64> = values.into_iter().filter(|value| *value > 0).collect();
        values.sort_unstable();
        if values.is_empty() { default } else { values[(values.len() - 1) / 2] }
    };
    let speed = known(machines.iter().map(|m| m.memory_bandwidth).collect(), 5_000_000_000);
    let links = machines.iter().filter(|m| !m.is_host).map(|m| m.link_bandwidth).collect();
    let bandwidth = known(links, 100_000_000);
    let or = |value: u64, other: u64| if value == 0 { other as f64 } else { value as f64 };
    let mut at = 0;
    let mut seconds = 0.0;
    let mut head_placed = false;
    for (index, machine) in machines.iter().enumerate() {
        let share = shares.iter().position(|share| share.machine as usize == index);
        let head =
            if machine.is_host { output_here } else { !output_here && share == Some(shares.len() - 1) };
        if machine.is_host && share.is_some_and(|share| share != 0) {
            return None;
        }
        if share.is_none() && !head {
            continue;
        }
        let before: usize = shares[..share.unwrap_or(0)].iter().map(|share| share.layers as usize).sum();
        let count = share.map_or(0, |share| shares[share].layers as usize);
        let own = shape.layers.get(before..before + count)?;
        let weights: u64 = own.iter().map(|layer| layer.weights).sum();
        let cache: u64 = own.iter().map(|layer| layer.cache).sum();
        let head_bytes = if head { shape.output } else { 0 };
        let head_memory = if head { shape.output + shape.output_buffer } else { 0 };
        if weights + cache + shape.compute_buffer + head_memory > machine.memory
            || count > machine.max_layers as usize
        {
            return None;
        }
        seconds += (weights + head_bytes) as f64 / or(machine.memory_bandwidth, speed);
        if !machine.is_host {
            let back = if head { shape.logits } else { shape.activations };
            seconds += machine.round_trip as f64 / 1e9;
            seconds += (shape.activations + back) as f64 / or(machine.link_bandwidth, bandwidth);
        }
        at += count;
        head_placed |= head;
    }
    (at == shape.layers.len() && head_placed).then_some(seconds * 1e9)
}

/// The least that any plan costs; `None` when none fits. Tries all orders and all cuts.
pub fn brute_force(shape: &Shape, machines: &[Machine]) -> Option<f64> {
    let mut least = None;
    let mut shares = Vec::new();
    let here = machines.iter().position(|machine| machine.is_host);
    every(machines, shape.layers.len(), &mut shares, &mut |shares| {
        for output_here in [false, true] {
            if here.is_none() && output_here {
                continue;
            }
            if let Some(price) = price(shape, machines, shares, output_here) {
                least = Some(least.map_or(price, |least: f64| least.min(price)));
            }
        }
    });
    least
}

/// Calls `visit` with every way to share out `left` layers after `shares`.
fn every(
    machines: &[Machine],
    left: usize,
    shares: &mut Vec<Assignment>,
    visit: &mut impl FnMut(&[Assignment]),
) {
    if left == 0 {
        return visit(shares);
    }
    for machine in 0..machines.len() as u32 {
        if shares.iter().any(|share| share.machine == machine) {
            continue;
        }
        for layers in 1..=left {
            shares.push(Assignment { machine, layers: layers as u32 });
            every(machines, left - layers, shares, visit);
            shares.pop();
        }
    }
}

/// Checks a plan and what it says of itself; returns what it costs.
pub fn checked(shape: &Shape, machines: &[Machine], plan: &Plan) -> f64 {
    let price = price(shape, machines, &plan.assignments, plan.output_on_host);
    let price = price.unwrap_or_else(|| panic!("does not fit: {plan:?}\n{shape:?}\n{machines:?}"));
    assert!(plan.assignments.iter().all(|share| share.layers > 0));
    assert!(
        (plan.time_per_token as f64 - price).abs() <= 1.0 + price * 1e-9,
        "{} is not {price}",
        plan.time_per_token
    );
    price
}
