//! A good plan for many machines, where a search over all orders takes too long. It starts from a few likely orders
//! and moves one machine at a time. At a local optimum it continues from a shuffle of the best order.

use crate::capacity;
use crate::layer_dp::{LayerDp, Placement};
use crate::problem::{Problem, Worker};

/// The moves of a shuffle.
const SHUFFLE_MOVES: usize = 3;

/// The best placement found in about `steps` steps. `None`: nothing fits in any order.
#[must_use]
pub fn best(problem: &Problem, steps: usize) -> Option<Placement> {
    let each = problem.workers.len() * (problem.layer_count + 1) * problem.host_parts.len();
    let mut search = LocalSearch { problem, remaining_orders: steps / each.max(1), rng_state: 1 };
    let mut orders: Vec<Order> =
        initial_orders(problem).into_iter().map(|workers| search.evaluate(workers)).collect();
    orders.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    if orders.first()?.cost == f64::INFINITY {
        orders = vec![search.evaluate(capacity::feasible_order(problem)?)];
    }
    let order = search.run(orders)?;
    let placements = problem
        .host_parts
        .iter()
        .filter_map(|host_part| LayerDp::new(problem, host_part, &order.workers).placement());
    placements.min_by(|a, b| a.cost.total_cmp(&b.cost))
}

/// The orders to begin with.
fn initial_orders(problem: &Problem) -> Vec<Vec<usize>> {
    let given: Vec<usize> = (0..problem.workers.len()).collect();
    let keys: [fn(&Worker) -> f64; 3] =
        [|worker| worker.time_per_byte, |worker| worker.max_end[0] as f64, |worker| worker.output_time];
    let mut orders = vec![given.clone()];
    for key in keys {
        let mut order = given.clone();
        order.sort_by(|a, b| key(&problem.workers[*a]).total_cmp(&key(&problem.workers[*b])));
        orders.push(order.clone());
        order.reverse();
        orders.push(order);
    }
    orders
}

/// An order of the workers, and the cost of its best plan in nanoseconds per token.
#[derive(Debug, Clone)]
struct Order {
    cost: f64,
    workers: Vec<usize>,
}

struct LocalSearch<'a> {
    problem: &'a Problem,
    /// Orders that may still be evaluated.
    remaining_orders: usize,
    rng_state: u64,
}

impl LocalSearch<'_> {
    fn evaluate(&mut self, workers: Vec<usize>) -> Order {
        self.remaining_orders = self.remaining_orders.saturating_sub(1);
        let host_parts = self.problem.host_parts.iter();
        let costs = host_parts.map(|host_part| LayerDp::new(self.problem, host_part, &workers).best().0);
        Order { cost: costs.fold(f64::INFINITY, f64::min), workers }
    }

    /// Improves each of `orders`, then shuffles of the best one, until no evaluation is left.
    fn run(&mut self, orders: Vec<Order>) -> Option<Order> {
        let mut best: Option<Order> = None;
        let mut orders = orders.into_iter();
        loop {
            let next = match (orders.next(), &best) {
                (Some(order), _) => order,
                (None, Some(best)) => {
                    let workers = self.shuffled(best.workers.clone());
                    self.evaluate(workers)
                }
                (None, None) => return None,
            };
            let top = self.improve(next);
            if best.as_ref().is_none_or(|best| top.cost < best.cost) {
                best = Some(top);
            }
            if self.remaining_orders == 0 {
                return best;
            }
        }
    }

    /// Moves one machine at a time to another place while that helps.
    fn improve(&mut self, mut order: Order) -> Order {
        let count = order.workers.len();
        // Moves since the last improvement. If their number reaches that of all moves, all were tried.
        let mut fruitless_moves = 0;
        for at in (0..count * count).cycle() {
            if self.remaining_orders == 0 || fruitless_moves == count * count {
                break;
            }
            fruitless_moves += 1;
            let (from, to) = (at / count, at % count);
            // Two neighbours can change places by either of two moves; one is enough.
            if from == to || from == to + 1 {
                continue;
            }
            let moved = self.evaluate(moved(&order.workers, from, to));
            if moved.cost < order.cost {
                (order, fruitless_moves) = (moved, 0);
            }
        }
        order
    }

    fn shuffled(&mut self, mut workers: Vec<usize>) -> Vec<usize> {
        for _ in 0..SHUFFLE_MOVES {
            let (from, to) = (self.random(workers.len()), self.random(workers.len()));
            workers = moved(&workers, from, to);
        }
        workers
    }

    /// A number less than `below`. Each search uses the same sequence.
    fn random(&mut self, below: usize) -> usize {
        self.rng_state = self.rng_state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.rng_state >> 33) as usize % below.max(1)
    }
}

/// The order with one worker moved.
fn moved(workers: &[usize], from: usize, to: usize) -> Vec<usize> {
    let mut moved = workers.to_vec();
    let worker = moved.remove(from);
    moved.insert(to, worker);
    moved
}
