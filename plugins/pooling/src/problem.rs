//! The numbers of one placement, prepared for a search.

use tightwad_plugin_sdk::{Machine, Shape};

use crate::cost;

/// The penalty of each used machine: of equal plans, the one with fewer machines wins. It is too small to matter
/// otherwise.
const MACHINE_PENALTY_NANOSECONDS: f64 = 1.0;

/// A machine other than the host.
#[derive(Debug)]
pub struct Worker {
    /// Its index in the list of machines.
    pub machine: usize,
    /// Nanoseconds per byte of weights.
    pub time_per_byte: f64,
    /// Nanoseconds for using it.
    pub fixed_time: f64,
    /// Additional nanoseconds for the output head.
    pub output_time: f64,
    /// For each layer count `q`: the smallest `p` for which it can hold the layers from `p` to `q`; `q` if it can
    /// hold none.
    pub first_layer: Vec<usize>,
    /// For each `p`: the largest `q` for which it can hold the layers from `p` to `q`.
    pub max_end: Vec<usize>,
    /// The smallest `p` for which it can hold the layers from `p` to the end and the output head; the number of
    /// layers if it can hold no layer with the head.
    pub first_layer_with_output: usize,
}

/// The part of the host, before any worker: the first layers, and possibly the output head.
#[derive(Debug)]
pub struct HostPart {
    /// True: the host holds the output head. False: the last worker holds it.
    pub output_on_host: bool,
    /// For each layer count: the nanoseconds of these layers on the host; infinite if they do not fit.
    pub cost: Vec<f64>,
    /// The largest layer count that fits.
    pub max_layers: usize,
}

/// One placement.
#[derive(Debug)]
pub struct Problem {
    /// The number of layers.
    pub layer_count: usize,
    /// Bytes of weights before each layer, and of all layers.
    pub weights_before: Vec<f64>,
    /// Bytes of memory before each layer, and of all layers.
    pub memory_before: Vec<u64>,
    /// Bytes of memory of the output head.
    pub output_memory: u64,
    /// The machines other than the host.
    pub workers: Vec<Worker>,
    /// The host's index in the list of machines.
    pub host: Option<usize>,
    /// The possible parts of the host: without the output head, and with it if it fits.
    pub host_parts: Vec<HostPart>,
}

impl Problem {
    /// Prepares a placement. The sum of the sizes must be less than 2^64.
    #[must_use]
    pub fn new(shape: &Shape, machines: &[Machine]) -> Self {
        let byte_times = cost::byte_times(machines);
        let mut weights_before = vec![0.0];
        let mut memory_before = vec![0];
        for (at, layer) in shape.layers.iter().enumerate() {
            weights_before.push(weights_before[at] + layer.weights as f64);
            memory_before.push(memory_before[at] + layer.weights + layer.cache);
        }
        let mut problem = Self {
            layer_count: shape.layers.len(),
            weights_before,
            memory_before,
            output_memory: shape.output + shape.output_buffer,
            workers: Vec::new(),
            host: machines.iter().position(|machine| machine.is_host),
            host_parts: Vec::new(),
        };
        for (index, machine) in machines.iter().enumerate().filter(|(_, machine)| !machine.is_host) {
            problem.workers.push(problem.worker(shape, machine, index, byte_times[index]));
        }
        problem.host_parts = problem.host_parts(shape, machines, &byte_times);
        problem
    }

    fn worker(&self, shape: &Shape, machine: &Machine, index: usize, times: cost::ByteTimes) -> Worker {
        let free_bytes = machine.memory.checked_sub(shape.compute_buffer);
        let first_layer = self.first_layers(free_bytes, machine.max_layers as usize);
        let mut max_end: Vec<usize> = (0..=self.layer_count).collect();
        for (q, &p) in first_layer.iter().enumerate() {
            max_end[p] = max_end[p].max(q);
        }
        // A run that starts later ends at the same layer or later.
        for p in 1..=self.layer_count {
            max_end[p] = max_end[p].max(max_end[p - 1]);
        }
        let with_output = free_bytes.and_then(|free_bytes| free_bytes.checked_sub(self.output_memory));
        let first_layer_with_output =
            self.first_layers(with_output, machine.max_layers as usize)[self.layer_count];
        Worker {
            machine: index,
            time_per_byte: times.memory,
            fixed_time: cost::fixed_time(shape, machine, times) + MACHINE_PENALTY_NANOSECONDS,
            output_time: cost::output_time(shape, times),
            first_layer,
            max_end,
            first_layer_with_output,
        }
    }

    /// For each layer count: the first layer of the longest run that ends there.
    fn first_layers(&self, free_bytes: Option<u64>, max_layers: usize) -> Vec<usize> {
        let Some(free_bytes) = free_bytes else { return (0..=self.layer_count).collect() };
        let mut first_layer = 0;
        (0..=self.layer_count)
            .map(|q| {
                while self.memory_before[q] - self.memory_before[first_layer] > free_bytes
                    || q - first_layer > max_layers
                {
                    first_layer += 1;
                }
                first_layer
            })
            .collect()
    }

    fn host_parts(
        &self,
        shape: &Shape,
        machines: &[Machine],
        byte_times: &[cost::ByteTimes],
    ) -> Vec<HostPart> {
        let infinite = || vec![f64::INFINITY; self.layer_count + 1];
        let mut without_output = HostPart { output_on_host: false, cost: infinite(), max_layers: 0 };
        without_output.cost[0] = 0.0;
        let Some(host) = self.host else { return vec![without_output] };
        let (machine, times) = (&machines[host], byte_times[host]);
        let max_layers = |free_bytes: u64| {
            let fits = |q: &usize| *q <= machine.max_layers as usize && self.memory_before[*q] <= free_bytes;
            (0..=self.layer_count).rev().find(fits).unwrap_or(0)
        };
        let free_bytes = machine.memory.checked_sub(shape.compute_buffer);
        without_output.max_layers = free_bytes.map_or(0, max_layers);
        for q in 1..=without_output.max_layers {
            without_output.cost[q] = MACHINE_PENALTY_NANOSECONDS + self.weights_before[q] * times.memory;
        }
        let mut host_parts = vec![without_output];
        if let Some(free_bytes) = free_bytes.and_then(|free_bytes| free_bytes.checked_sub(self.output_memory))
        {
            let mut with_output =
                HostPart { output_on_host: true, cost: infinite(), max_layers: max_layers(free_bytes) };
            for q in 0..=with_output.max_layers {
                with_output.cost[q] = MACHINE_PENALTY_NANOSECONDS
                    + cost::output_time_on_host(shape, times)
                    + self.weights_before[q] * times.memory;
            }
            host_parts.push(with_output);
        }
        host_parts
    }
}
