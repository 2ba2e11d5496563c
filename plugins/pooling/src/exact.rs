//! The best plan over all orders, where the machines are few: rows for every set of workers.
//!
//! `rows[set][q]` is the least time for the first `q` layers on the host and on all workers of `set`,
//! each of which holds a run.

use crate::chain::{Found, Queue, extend, last_run, run};
use crate::problem::{Problem, Start};

/// Steps that [`best`] takes.
#[must_use]
pub fn steps(problem: &Problem) -> usize {
    let workers = problem.workers.len();
    (problem.layers + 1).saturating_mul(workers << workers).saturating_mul(problem.starts.len())
}

/// The best placement; `None` when nothing fits.
#[must_use]
pub fn best(problem: &Problem) -> Option<Found> {
    let found = problem.starts.iter().filter_map(|start| Sets::new(problem, start).found());
    found.min_by(|a, b| a.cost.total_cmp(&b.cost))
}

struct Sets<'a> {
    problem: &'a Problem,
    start: &'a Start,
    rows: Vec<f64>,
}

impl<'a> Sets<'a> {
    fn new(problem: &'a Problem, start: &'a Start) -> Self {
        let width = problem.layers + 1;
        let mut rows = vec![f64::INFINITY; width << problem.workers.len()];
        rows[..width].copy_from_slice(&start.cost);
        let mut queue = Queue::new();
        for set in 1..1_usize << problem.workers.len() {
            // A set comes after all sets that lack one of its workers.
            let (before, into) = rows.split_at_mut(set * width);
            for (bit, worker) in problem.workers.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1) {
                let smaller = (set ^ 1 << bit) * width;
                let before = &before[smaller..smaller + width];
                extend(worker, &problem.weights, before, &mut queue, &mut into[..width]);
            }
        }
        Self { problem, start, rows }
    }

    fn row(&self, set: usize) -> &[f64] {
        let width = self.problem.layers + 1;
        &self.rows[set * width..(set + 1) * width]
    }

    fn found(&self) -> Option<Found> {
        let problem = self.problem;
        let all = 0..1_usize << problem.workers.len();
        if self.start.head_here {
            let costs = all.map(|set| (set, self.row(set)[problem.layers]));
            let (set, cost) = costs.min_by(|a, b| a.1.total_cmp(&b.1))?;
            return self.trace(set, problem.layers, cost, Vec::new());
        }
        let mut best = (f64::INFINITY, 0, 0, 0);
        for set in all {
            for (bit, worker) in problem.workers.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 0) {
                let (p, cost) = last_run(worker, &problem.weights, self.row(set));
                if cost < best.0 {
                    best = (cost, set, bit, p);
                }
            }
        }
        let (cost, set, last, p) = best;
        self.trace(set, p, cost, vec![(last, problem.layers - p)])
    }

    /// Follows the rows back from `set` and `q`; `runs` are the runs after them, the last one first.
    fn trace(&self, mut set: usize, mut q: usize, cost: f64, mut runs: Vec<(usize, usize)>) -> Option<Found> {
        if cost == f64::INFINITY {
            return None;
        }
        while set != 0 {
            let workers = self.problem.workers.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
            let last = workers.map(|(bit, worker)| {
                let before = self.row(set ^ 1 << bit);
                (bit, run(worker, &self.problem.weights, before, worker.low[q], q))
            });
            let (bit, (p, _)) = last.min_by(|a, b| a.1.1.total_cmp(&b.1.1))?;
            runs.push((bit, q - p));
            (set, q) = (set ^ 1 << bit, p);
        }
        runs.reverse();
        Some(Found { cost, head_here: self.start.head_here, at_here: q, runs })
    }
}
