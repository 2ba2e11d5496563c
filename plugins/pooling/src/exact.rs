//! The best plan over all orders, for few machines: one row per set of workers.
//!
//! `rows[set][q]` is the least time for the first `q` layers on the host and all workers of `set`, each with a run.

use crate::layer_dp::{MinQueue, Placement, best_last_run, best_run, extend_row};
use crate::problem::{HostPart, Problem};

/// The number of steps of [`best`].
#[must_use]
pub fn steps(problem: &Problem) -> usize {
    let workers = problem.workers.len();
    (problem.layer_count + 1).saturating_mul(workers << workers).saturating_mul(problem.host_parts.len())
}

/// The best placement. `None`: nothing fits.
#[must_use]
pub fn best(problem: &Problem) -> Option<Placement> {
    let placements =
        problem.host_parts.iter().filter_map(|host_part| SubsetDp::new(problem, host_part).placement());
    placements.min_by(|a, b| a.cost.total_cmp(&b.cost))
}

struct SubsetDp<'a> {
    problem: &'a Problem,
    host_part: &'a HostPart,
    rows: Vec<f64>,
}

impl<'a> SubsetDp<'a> {
    fn new(problem: &'a Problem, host_part: &'a HostPart) -> Self {
        let width = problem.layer_count + 1;
        let mut rows = vec![f64::INFINITY; width << problem.workers.len()];
        rows[..width].copy_from_slice(&host_part.cost);
        let mut queue = MinQueue::new();
        for set in 1..1_usize << problem.workers.len() {
            // All sets without one of its workers have smaller numbers.
            let (previous, into) = rows.split_at_mut(set * width);
            for (bit, worker) in problem.workers.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1) {
                let smaller = (set ^ 1 << bit) * width;
                let previous = &previous[smaller..smaller + width];
                extend_row(worker, &problem.weights_before, previous, &mut queue, &mut into[..width]);
            }
        }
        Self { problem, host_part, rows }
    }

    fn row(&self, set: usize) -> &[f64] {
        let width = self.problem.layer_count + 1;
        &self.rows[set * width..(set + 1) * width]
    }

    fn placement(&self) -> Option<Placement> {
        let problem = self.problem;
        let all = 0..1_usize << problem.workers.len();
        if self.host_part.output_on_host {
            let costs = all.map(|set| (set, self.row(set)[problem.layer_count]));
            let (set, cost) = costs.min_by(|a, b| a.1.total_cmp(&b.1))?;
            return self.trace(set, problem.layer_count, cost, Vec::new());
        }
        let mut best = (f64::INFINITY, 0, 0, 0);
        for set in all {
            for (bit, worker) in problem.workers.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 0) {
                let (p, cost) = best_last_run(worker, &problem.weights_before, self.row(set));
                if cost < best.0 {
                    best = (cost, set, bit, p);
                }
            }
        }
        let (cost, set, last, p) = best;
        self.trace(set, p, cost, vec![(last, problem.layer_count - p)])
    }

    /// Follows the rows back from `set` and `q`. `runs` are the runs after them, the last one first.
    fn trace(
        &self,
        mut set: usize,
        mut q: usize,
        cost: f64,
        mut runs: Vec<(usize, usize)>,
    ) -> Option<Placement> {
        if cost == f64::INFINITY {
            return None;
        }
        while set != 0 {
            let workers = self.problem.workers.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
            let last = workers.map(|(bit, worker)| {
                let previous = self.row(set ^ 1 << bit);
                (bit, best_run(worker, &self.problem.weights_before, previous, worker.first_layer[q], q))
            });
            let (bit, (p, _)) = last.min_by(|a, b| a.1.1.total_cmp(&b.1.1))?;
            runs.push((bit, q - p));
            (set, q) = (set ^ 1 << bit, p);
        }
        runs.reverse();
        Some(Placement { cost, output_on_host: self.host_part.output_on_host, host_layers: q, runs })
    }
}
