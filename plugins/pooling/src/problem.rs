//! The numbers of one placement, laid out for a search.

use tightwad_plugin_sdk::{Machine, Shape};

use crate::cost;

/// Nanoseconds that count against each machine used, so that of equal plans the one with fewer
/// machines wins. No clock would notice it.
const EACH: f64 = 1.0;

/// A machine that is not the host.
#[derive(Debug)]
pub struct Worker {
    /// Its index in the list of machines.
    pub machine: usize,
    /// Nanoseconds a byte of weights.
    pub reading: f64,
    /// Nanoseconds for using it at all.
    pub fixed: f64,
    /// Nanoseconds for the output head besides.
    pub head: f64,
    /// For each layer count `q`: the smallest `p` such that it can hold the layers from `p` to `q`; `q`
    /// when it can hold none.
    pub low: Vec<usize>,
    /// For each `p`: the largest `q` such that it can hold the layers from `p` to `q`.
    pub reach: Vec<usize>,
    /// The smallest `p` such that it can hold the layers from `p` to the end and the output head; the
    /// number of layers when it can hold no layer with it.
    pub low_head: usize,
}

/// What the host itself holds, before any worker: the first layers, and perhaps the output head.
#[derive(Debug)]
pub struct Start {
    /// True: the head is on the host. False: the last worker gets it.
    pub head_here: bool,
    /// For each layer count: nanoseconds for holding so many; infinite where they do not fit.
    pub cost: Vec<f64>,
    /// The largest layer count that fits.
    pub most: usize,
}

/// One placement.
#[derive(Debug)]
pub struct Problem {
    /// How many layers there are.
    pub layers: usize,
    /// Bytes of weights before each layer, and of all.
    pub weights: Vec<f64>,
    /// Bytes of memory before each layer, and of all.
    pub memory: Vec<u64>,
    /// Bytes of memory that the output head takes.
    pub head_memory: u64,
    /// The machines besides the host.
    pub workers: Vec<Worker>,
    /// Index of the host in the list of machines.
    pub here: Option<usize>,
    /// The ways to begin: with the head on the host, where it fits, and without.
    pub starts: Vec<Start>,
}

impl Problem {
    /// Lays out a placement whose sizes were checked: their sum is less than 2^64.
    #[must_use]
    pub fn new(shape: &Shape, machines: &[Machine]) -> Self {
        let paces = cost::paces(machines);
        let mut weights = vec![0.0];
        let mut memory = vec![0];
        for (at, layer) in shape.layers.iter().enumerate() {
            weights.push(weights[at] + layer.weights as f64);
            memory.push(memory[at] + layer.weights + layer.cache);
        }
        let mut problem = Self {
            layers: shape.layers.len(),
            weights,
            memory,
            head_memory: shape.output + shape.output_buffer,
            workers: Vec::new(),
            here: machines.iter().position(|machine| machine.is_host),
            starts: Vec::new(),
        };
        for (index, machine) in machines.iter().enumerate().filter(|(_, machine)| !machine.is_host) {
            problem.workers.push(problem.worker(shape, machine, index, paces[index]));
        }
        problem.starts = problem.starts(shape, machines, &paces);
        problem
    }

    fn worker(&self, shape: &Shape, machine: &Machine, index: usize, pace: cost::Pace) -> Worker {
        let room = machine.memory.checked_sub(shape.compute_buffer);
        let low = self.lows(room, machine.max_layers as usize);
        let mut reach: Vec<usize> = (0..=self.layers).collect();
        for (q, &p) in low.iter().enumerate() {
            reach[p] = reach[p].max(q);
        }
        // Where a run may start later, it may end as late at least.
        for p in 1..=self.layers {
            reach[p] = reach[p].max(reach[p - 1]);
        }
        let with_head = room.and_then(|room| room.checked_sub(self.head_memory));
        let low_head = self.lows(with_head, machine.max_layers as usize)[self.layers];
        Worker {
            machine: index,
            reading: pace.reading,
            fixed: cost::fixed(shape, machine, pace) + EACH,
            head: cost::head(shape, pace),
            low,
            reach,
            low_head,
        }
    }

    /// For each layer count, where a run that ends there may begin at the earliest.
    fn lows(&self, room: Option<u64>, most: usize) -> Vec<usize> {
        let Some(room) = room else { return (0..=self.layers).collect() };
        let mut low = 0;
        (0..=self.layers)
            .map(|q| {
                while self.memory[q] - self.memory[low] > room || q - low > most {
                    low += 1;
                }
                low
            })
            .collect()
    }

    fn starts(&self, shape: &Shape, machines: &[Machine], paces: &[cost::Pace]) -> Vec<Start> {
        let infinite = || vec![f64::INFINITY; self.layers + 1];
        let mut away = Start { head_here: false, cost: infinite(), most: 0 };
        away.cost[0] = 0.0;
        let Some(here) = self.here else { return vec![away] };
        let (machine, pace) = (&machines[here], paces[here]);
        let most = |room: u64| {
            let fits = |q: &usize| *q <= machine.max_layers as usize && self.memory[*q] <= room;
            (0..=self.layers).rev().find(fits).unwrap_or(0)
        };
        let room = machine.memory.checked_sub(shape.compute_buffer);
        away.most = room.map_or(0, most);
        for q in 1..=away.most {
            away.cost[q] = EACH + self.weights[q] * pace.reading;
        }
        let mut starts = vec![away];
        if let Some(room) = room.and_then(|room| room.checked_sub(self.head_memory)) {
            let mut with_head = Start { head_here: true, cost: infinite(), most: most(room) };
            for q in 0..=with_head.most {
                with_head.cost[q] = EACH + cost::head_here(shape, pace) + self.weights[q] * pace.reading;
            }
            starts.push(with_head);
        }
        starts
    }
}
