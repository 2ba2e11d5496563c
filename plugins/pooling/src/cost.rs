//! The cost of a plan: the expected time of one token.
//!
//! Machines work one after the other, so the time of a token is the sum of their times. A machine reads its weights
//! once. A worker also takes its round trip and one row of activations in each direction. The worker with the output
//! head returns logits instead.

use tightwad_plugin_sdk::{Assignment, Machine, Shape};

/// Bytes per second, if no machine's memory bandwidth is known: a CPU with two channels of old memory.
pub const DEFAULT_MEMORY_BANDWIDTH: u64 = 5_000_000_000;
/// Bytes per second, if no link's bandwidth is known: gigabit Ethernet.
pub const DEFAULT_LINK_BANDWIDTH: u64 = 100_000_000;

/// A machine's times, in nanoseconds per byte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ByteTimes {
    /// Reading weights from memory.
    pub memory: f64,
    /// The link; 0 for the host.
    pub link: f64,
}

/// The times of each machine. An unknown bandwidth is the lower median of the known ones, or the default.
#[must_use]
pub fn byte_times(machines: &[Machine]) -> Vec<ByteTimes> {
    let memory_bandwidth =
        median(machines.iter().map(|machine| machine.memory_bandwidth), DEFAULT_MEMORY_BANDWIDTH);
    let links = machines.iter().filter(|machine| !machine.is_host);
    let link_bandwidth = median(links.map(|machine| machine.link_bandwidth), DEFAULT_LINK_BANDWIDTH);
    let per_byte = |known: u64, assumed: u64| 1e9 / if known == 0 { assumed } else { known } as f64;
    machines
        .iter()
        .map(|machine| ByteTimes {
            memory: per_byte(machine.memory_bandwidth, memory_bandwidth),
            link: if machine.is_host { 0.0 } else { per_byte(machine.link_bandwidth, link_bandwidth) },
        })
        .collect()
}

fn median(values: impl Iterator<Item = u64>, default: u64) -> u64 {
    let mut known: Vec<u64> = values.filter(|value| *value != 0).collect();
    known.sort_unstable();
    known.get(known.len().saturating_sub(1) / 2).copied().unwrap_or(default)
}

/// The time of using a machine, independent of its layers, in nanoseconds.
#[must_use]
pub fn fixed_time(shape: &Shape, machine: &Machine, times: ByteTimes) -> f64 {
    if machine.is_host {
        0.0
    } else {
        machine.round_trip as f64 + 2.0 * shape.activations as f64 * times.link
    }
}

/// The additional time of the output head on a worker, in nanoseconds. The worker sends logits instead of
/// activations.
#[must_use]
pub fn output_time(shape: &Shape, times: ByteTimes) -> f64 {
    shape.output as f64 * times.memory + (shape.logits as f64 - shape.activations as f64) * times.link
}

/// The time of the output head on the host, in nanoseconds.
#[must_use]
pub fn output_time_on_host(shape: &Shape, times: ByteTimes) -> f64 {
    shape.output as f64 * times.memory
}

/// The expected time per token of a plan, in nanoseconds.
#[must_use]
pub fn time_per_token(
    shape: &Shape,
    machines: &[Machine],
    assignments: &[Assignment],
    output_on_host: bool,
) -> f64 {
    let byte_times = byte_times(machines);
    let mut layers = shape.layers.iter();
    let mut sum = 0.0;
    for (at, assignment) in assignments.iter().enumerate() {
        let index = assignment.machine as usize;
        let (Some(machine), Some(&times)) = (machines.get(index), byte_times.get(index)) else { continue };
        let own = layers.by_ref().take(assignment.layers as usize);
        let weights: f64 = own.map(|layer| layer.weights as f64).sum();
        sum += weights * times.memory + fixed_time(shape, machine, times);
        if !output_on_host && at + 1 == assignments.len() {
            sum +=
                if machine.is_host { output_time_on_host(shape, times) } else { output_time(shape, times) };
        }
    }
    let host = machines.iter().zip(&byte_times).find(|(machine, _)| machine.is_host);
    sum + host.filter(|_| output_on_host).map_or(0.0, |(_, times)| output_time_on_host(shape, *times))
}
