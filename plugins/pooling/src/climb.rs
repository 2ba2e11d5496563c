//! A good plan where the machines are too many for all orders: from a few likely orders to better ones
//! by moving one machine at a time, and where that ends, on from a shuffle of the best.

use crate::chain::{Chain, Found};
use crate::problem::{Problem, Worker};
use crate::room;

/// Machines that a shuffle moves.
const SHUFFLED: usize = 3;

/// The best placement found in about `steps` steps; `None` when nothing fits in any order.
#[must_use]
pub fn best(problem: &Problem, steps: usize) -> Option<Found> {
    let each = problem.workers.len() * (problem.layers + 1) * problem.starts.len();
    let mut climber = Climber { problem, left: steps / each.max(1), chance: 1 };
    let mut orders: Vec<Order> = likely(problem).into_iter().map(|workers| climber.order(workers)).collect();
    orders.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    if orders.first()?.cost == f64::INFINITY {
        orders = vec![climber.order(room::order(problem)?)];
    }
    let order = climber.search(orders)?;
    let found = problem.starts.iter().filter_map(|start| Chain::new(problem, start, &order.workers).found());
    found.min_by(|a, b| a.cost.total_cmp(&b.cost))
}

/// The orders to begin with.
fn likely(problem: &Problem) -> Vec<Vec<usize>> {
    let given: Vec<usize> = (0..problem.workers.len()).collect();
    let keys: [fn(&Worker) -> f64; 3] =
        [|worker| worker.reading, |worker| worker.reach[0] as f64, |worker| worker.head];
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

/// An order of the workers, and the nanoseconds a token of the best plan with it.
#[derive(Debug, Clone)]
struct Order {
    cost: f64,
    workers: Vec<usize>,
}

struct Climber<'a> {
    problem: &'a Problem,
    /// Orders that may still be tried.
    left: usize,
    chance: u64,
}

impl Climber<'_> {
    fn order(&mut self, workers: Vec<usize>) -> Order {
        self.left = self.left.saturating_sub(1);
        let starts = self.problem.starts.iter();
        let costs = starts.map(|start| Chain::new(self.problem, start, &workers).best().0);
        Order { cost: costs.fold(f64::INFINITY, f64::min), workers }
    }

    /// Climbs from each of `orders`, then from shuffles of the best for as long as it may.
    fn search(&mut self, orders: Vec<Order>) -> Option<Order> {
        let mut best: Option<Order> = None;
        let mut orders = orders.into_iter();
        loop {
            let next = match (orders.next(), &best) {
                (Some(order), _) => order,
                (None, Some(best)) => {
                    let workers = self.shuffled(best.workers.clone());
                    self.order(workers)
                }
                (None, None) => return None,
            };
            let top = self.climb(next);
            if best.as_ref().is_none_or(|best| top.cost < best.cost) {
                best = Some(top);
            }
            if self.left == 0 {
                return best;
            }
        }
    }

    /// Moves one machine at a time to another place, for as long as that helps.
    fn climb(&mut self, mut order: Order) -> Order {
        let count = order.workers.len();
        // Moves since the last one that helped: all were tried when it reaches their number.
        let mut idle = 0;
        for at in (0..count * count).cycle() {
            if self.left == 0 || idle == count * count {
                break;
            }
            idle += 1;
            let (from, to) = (at / count, at % count);
            // Neighbours change places one way only.
            if from == to || from == to + 1 {
                continue;
            }
            let moved = self.order(moved(&order.workers, from, to));
            if moved.cost < order.cost {
                (order, idle) = (moved, 0);
            }
        }
        order
    }

    fn shuffled(&mut self, mut workers: Vec<usize>) -> Vec<usize> {
        for _ in 0..SHUFFLED {
            let (from, to) = (self.random(workers.len()), self.random(workers.len()));
            workers = moved(&workers, from, to);
        }
        workers
    }

    /// Less than `below`; the same row of numbers for every question.
    fn random(&mut self, below: usize) -> usize {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.chance >> 33) as usize % below.max(1)
    }
}

/// The order with one worker in another place.
fn moved(workers: &[usize], from: usize, to: usize) -> Vec<usize> {
    let mut moved = workers.to_vec();
    let worker = moved.remove(from);
    moved.insert(to, worker);
    moved
}
