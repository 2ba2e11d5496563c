//! The best plan for one order of the machines, by dynamic programming: which machines to use, and where to cut.
//!
//! `rows[j][q]` is the least time for the first `q` layers on the host and some of the first `j` workers of the
//! order. The time of a run is linear in its weights, so each row takes one pass with a sliding minimum.

use crate::problem::{HostPart, Problem, Worker};

/// The place of every layer, and the cost of a token.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Nanoseconds per token, with a small penalty for each machine.
    pub cost: f64,
    /// True: the host holds the output head.
    pub output_on_host: bool,
    /// The number of layers on the host.
    pub host_layers: usize,
    /// Workers (indices into the problem's list) and their numbers of layers, in the order of the layers.
    pub runs: Vec<(usize, usize)>,
}

/// Candidates of a sliding minimum. The callers reuse it to save allocations.
pub type MinQueue = Vec<(f64, usize)>;

/// Folds into `into` the least time for each number of layers if `worker` holds the last of them. `previous` has the
/// times of the layers before them.
pub fn extend_row(
    worker: &Worker,
    weights: &[f64],
    previous: &[f64],
    queue: &mut MinQueue,
    into: &mut [f64],
) {
    queue.clear();
    let mut first = 0;
    for q in 1..previous.len() {
        let entering = previous[q - 1] - worker.time_per_byte * weights[q - 1];
        if entering < f64::INFINITY {
            while queue.len() > first && queue.last().is_some_and(|last| last.0 >= entering) {
                queue.pop();
            }
            queue.push((entering, q - 1));
        }
        while queue.get(first).is_some_and(|(_, p)| *p < worker.first_layer[q]) {
            first += 1;
        }
        if let Some((least, _)) = queue.get(first) {
            into[q] = into[q].min(least + worker.time_per_byte * weights[q] + worker.fixed_time);
        }
    }
}

/// The best beginning, from `low` on, of the run of `worker` that ends at `q`, and the time up to `q`.
#[must_use]
pub fn best_run(worker: &Worker, weights: &[f64], previous: &[f64], low: usize, q: usize) -> (usize, f64) {
    let mut best = (q, f64::INFINITY);
    for p in low..q {
        let entering = previous[p] - worker.time_per_byte * weights[p];
        if entering < best.1 {
            best = (p, entering);
        }
    }
    (best.0, best.1 + worker.time_per_byte * weights[q] + worker.fixed_time)
}

/// The last run if `worker` holds the output head.
#[must_use]
pub fn best_last_run(worker: &Worker, weights: &[f64], previous: &[f64]) -> (usize, f64) {
    let (p, cost) = best_run(worker, weights, previous, worker.first_layer_with_output, previous.len() - 1);
    (p, cost + worker.output_time)
}

/// The rows of one order.
#[derive(Debug)]
pub struct LayerDp<'a> {
    problem: &'a Problem,
    host_part: &'a HostPart,
    order: &'a [usize],
    rows: Vec<f64>,
}

impl<'a> LayerDp<'a> {
    /// Computes the rows.
    #[must_use]
    pub fn new(problem: &'a Problem, host_part: &'a HostPart, order: &'a [usize]) -> Self {
        let width = problem.layer_count + 1;
        let mut rows = Vec::with_capacity(width * (order.len() + 1));
        let mut queue = MinQueue::new();
        rows.extend_from_slice(&host_part.cost);
        for (at, worker) in order.iter().enumerate() {
            rows.extend_from_within(at * width..);
            let (previous, into) = rows.split_at_mut((at + 1) * width);
            let previous = &previous[at * width..];
            extend_row(&problem.workers[*worker], &problem.weights_before, previous, &mut queue, into);
        }
        Self { problem, host_part, order, rows }
    }

    fn row(&self, at: usize) -> &[f64] {
        let width = self.problem.layer_count + 1;
        &self.rows[at * width..(at + 1) * width]
    }

    /// The least time in nanoseconds; infinite if nothing fits. If a worker holds the output head, also its position
    /// in the order.
    #[must_use]
    pub fn best(&self) -> (f64, Option<usize>) {
        if self.host_part.output_on_host {
            return (self.row(self.order.len())[self.problem.layer_count], None);
        }
        let mut best = (f64::INFINITY, None);
        for (at, worker) in self.order.iter().enumerate() {
            let (_, cost) =
                best_last_run(&self.problem.workers[*worker], &self.problem.weights_before, self.row(at));
            if cost < best.0 {
                best = (cost, Some(at));
            }
        }
        best
    }

    /// The placement with the least time.
    #[must_use]
    pub fn placement(&self) -> Option<Placement> {
        let (cost, last) = self.best();
        if cost == f64::INFINITY {
            return None;
        }
        let weights = &self.problem.weights_before;
        let mut runs = Vec::new();
        let mut q = self.problem.layer_count;
        let mut at = self.order.len();
        if let Some(last) = last {
            let worker = self.order[last];
            let (p, _) = best_last_run(&self.problem.workers[worker], weights, self.row(last));
            runs.push((worker, q - p));
            (q, at) = (p, last);
        }
        while at > 0 && q > 0 {
            at -= 1;
            // Equal values in both rows: this worker was left out.
            if self.row(at)[q] > self.row(at + 1)[q] {
                let worker = &self.problem.workers[self.order[at]];
                let (p, _) = best_run(worker, weights, self.row(at), worker.first_layer[q], q);
                runs.push((self.order[at], q - p));
                q = p;
            }
        }
        runs.reverse();
        Some(Placement { cost, output_on_host: self.host_part.output_on_host, host_layers: q, runs })
    }
}
