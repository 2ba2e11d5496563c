//! What a plan costs: the expected time of one token.
//!
//! Machines work one after the other, so a token takes the sum of what each takes: reading its weights
//! once, and for a worker the way to it and back with one row of activations each way. The last worker
//! sends logits back where it holds the output head.

use tightwad_plugin_sdk::{Assignment, Machine, Shape};

/// Assumed of a machine when no machine's speed is known, in bytes a second: a CPU with two channels
/// of old memory.
pub const DEFAULT_SPEED: u64 = 5_000_000_000;
/// Assumed of a link when no link's bandwidth is known, in bytes a second: gigabit Ethernet.
pub const DEFAULT_BANDWIDTH: u64 = 100_000_000;

/// How fast a machine is, in nanoseconds a byte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Reading weights.
    pub reading: f64,
    /// Its link; 0 for the host itself.
    pub link: f64,
}

/// How fast each machine is. What is unknown of one is taken to be the median of the others (the lower
/// of two), or the default.
#[must_use]
pub fn paces(machines: &[Machine]) -> Vec<Pace> {
    let speed = median(machines.iter().map(|machine| machine.memory_bandwidth), DEFAULT_SPEED);
    let links = machines.iter().filter(|machine| !machine.is_host);
    let bandwidth = median(links.map(|machine| machine.link_bandwidth), DEFAULT_BANDWIDTH);
    let pace = |known: u64, assumed: u64| 1e9 / if known == 0 { assumed } else { known } as f64;
    machines
        .iter()
        .map(|machine| Pace {
            reading: pace(machine.memory_bandwidth, speed),
            link: if machine.is_host { 0.0 } else { pace(machine.link_bandwidth, bandwidth) },
        })
        .collect()
}

fn median(values: impl Iterator<Item = u64>, default: u64) -> u64 {
    let mut known: Vec<u64> = values.filter(|value| *value != 0).collect();
    known.sort_unstable();
    known.get(known.len().saturating_sub(1) / 2).copied().unwrap_or(default)
}

/// What using a machine costs whatever it holds, in nanoseconds.
#[must_use]
pub fn fixed(shape: &Shape, machine: &Machine, pace: Pace) -> f64 {
    if machine.is_host { 0.0 } else { machine.round_trip as f64 + 2.0 * shape.activations as f64 * pace.link }
}

/// What the output head costs besides on a machine, in nanoseconds. A worker that holds it sends logits
/// instead of activations.
#[must_use]
pub fn head(shape: &Shape, pace: Pace) -> f64 {
    shape.output as f64 * pace.reading + (shape.logits as f64 - shape.activations as f64) * pace.link
}

/// What reading the output head costs the host itself, in nanoseconds.
#[must_use]
pub fn head_here(shape: &Shape, pace: Pace) -> f64 {
    shape.output as f64 * pace.reading
}

/// Expected time of one token under a plan, in nanoseconds.
#[must_use]
pub fn token(shape: &Shape, machines: &[Machine], shares: &[Assignment], output_here: bool) -> f64 {
    let paces = paces(machines);
    let mut layers = shape.layers.iter();
    let mut sum = 0.0;
    for (at, share) in shares.iter().enumerate() {
        let index = share.machine as usize;
        let (Some(machine), Some(&pace)) = (machines.get(index), paces.get(index)) else { continue };
        let own = layers.by_ref().take(share.layers as usize);
        let weights: f64 = own.map(|layer| layer.weights as f64).sum();
        sum += weights * pace.reading + fixed(shape, machine, pace);
        if !output_here && at + 1 == shares.len() {
            sum += if machine.is_host { head_here(shape, pace) } else { head(shape, pace) };
        }
    }
    let host = machines.iter().zip(&paces).find(|(machine, _)| machine.is_host);
    sum + host.filter(|_| output_here).map_or(0.0, |(_, pace)| head_here(shape, *pace))
}
