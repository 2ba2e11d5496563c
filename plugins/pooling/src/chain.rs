//! The best plan for one order of the machines: which of them to use, and where to cut.
//!
//! `rows[j][q]` is the least time for the first `q` layers on the host and some of the first `j`
//! workers of the order. The time of a run is linear in its weights, so each row takes one pass with a
//! sliding minimum.

use crate::problem::{Problem, Start, Worker};

/// A placement that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Nanoseconds a token, with a trifle for each machine.
    pub cost: f64,
    /// True: the output head is on the host.
    pub head_here: bool,
    /// How many layers the host holds.
    pub at_here: usize,
    /// Workers (indices into the problem's list) and their layers, in the order of the layers.
    pub runs: Vec<(usize, usize)>,
}

/// Candidates of a sliding minimum; kept to spare allocations.
pub type Queue = Vec<(f64, usize)>;

/// Folds into `into` the least time for each number of layers when `worker` holds the last of them and
/// `before` says what the layers before it take.
pub fn extend(worker: &Worker, weights: &[f64], before: &[f64], queue: &mut Queue, into: &mut [f64]) {
    queue.clear();
    let mut first = 0;
    for q in 1..before.len() {
        let entering = before[q - 1] - worker.reading * weights[q - 1];
        if entering < f64::INFINITY {
            while queue.len() > first && queue.last().is_some_and(|last| last.0 >= entering) {
                queue.pop();
            }
            queue.push((entering, q - 1));
        }
        while queue.get(first).is_some_and(|(_, p)| *p < worker.low[q]) {
            first += 1;
        }
        if let Some((least, _)) = queue.get(first) {
            into[q] = into[q].min(least + worker.reading * weights[q] + worker.fixed);
        }
    }
}

/// Where the run of `worker` that ends at `q` best begins, from `low` on; and what it takes up to `q`.
#[must_use]
pub fn run(worker: &Worker, weights: &[f64], before: &[f64], low: usize, q: usize) -> (usize, f64) {
    let mut best = (q, f64::INFINITY);
    for p in low..q {
        let entering = before[p] - worker.reading * weights[p];
        if entering < best.1 {
            best = (p, entering);
        }
    }
    (best.0, best.1 + worker.reading * weights[q] + worker.fixed)
}

/// The last run when `worker` holds the output head.
#[must_use]
pub fn last_run(worker: &Worker, weights: &[f64], before: &[f64]) -> (usize, f64) {
    let (p, cost) = run(worker, weights, before, worker.low_head, before.len() - 1);
    (p, cost + worker.head)
}

/// Rows of one order.
#[derive(Debug)]
pub struct Chain<'a> {
    problem: &'a Problem,
    start: &'a Start,
    order: &'a [usize],
    rows: Vec<f64>,
}

impl<'a> Chain<'a> {
    /// Computes the rows.
    #[must_use]
    pub fn new(problem: &'a Problem, start: &'a Start, order: &'a [usize]) -> Self {
        let width = problem.layers + 1;
        let mut rows = Vec::with_capacity(width * (order.len() + 1));
        let mut queue = Queue::new();
        rows.extend_from_slice(&start.cost);
        for (at, worker) in order.iter().enumerate() {
            rows.extend_from_within(at * width..);
            let (before, into) = rows.split_at_mut((at + 1) * width);
            let before = &before[at * width..];
            extend(&problem.workers[*worker], &problem.weights, before, &mut queue, into);
        }
        Self { problem, start, order, rows }
    }

    fn row(&self, at: usize) -> &[f64] {
        let width = self.problem.layers + 1;
        &self.rows[at * width..(at + 1) * width]
    }

    /// The least time in nanoseconds, infinite when nothing fits; and for a head away from the host, the
    /// place in the order of the worker that gets it.
    #[must_use]
    pub fn best(&self) -> (f64, Option<usize>) {
        if self.start.head_here {
            return (self.row(self.order.len())[self.problem.layers], None);
        }
        let mut best = (f64::INFINITY, None);
        for (at, worker) in self.order.iter().enumerate() {
            let (_, cost) = last_run(&self.problem.workers[*worker], &self.problem.weights, self.row(at));
            if cost < best.0 {
                best = (cost, Some(at));
            }
        }
        best
    }

    /// The placement that takes the least time.
    #[must_use]
    pub fn found(&self) -> Option<Found> {
        let (cost, last) = self.best();
        if cost == f64::INFINITY {
            return None;
        }
        let weights = &self.problem.weights;
        let mut runs = Vec::new();
        let mut q = self.problem.layers;
        let mut at = self.order.len();
        if let Some(last) = last {
            let worker = self.order[last];
            let (p, _) = last_run(&self.problem.workers[worker], weights, self.row(last));
            runs.push((worker, q - p));
            (q, at) = (p, last);
        }
        while at > 0 && q > 0 {
            at -= 1;
            // The same in both rows: this worker was left out.
            if self.row(at)[q] > self.row(at + 1)[q] {
                let worker = &self.problem.workers[self.order[at]];
                let (p, _) = run(worker, weights, self.row(at), worker.low[q], q);
                runs.push((self.order[at], q - p));
                q = p;
            }
        }
        runs.reverse();
        Some(Found { cost, head_here: self.start.head_here, at_here: q, runs })
    }
}
