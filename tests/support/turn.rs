//! Tests take turns: more threads that compute than cores would slow all of them down many times over.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Tests that may share the machine: each has one core.
const CORES: usize = 2;

/// The right to run; given back when dropped, from whichever thread.
pub struct Turn {
    cores: usize,
}

/// A core: for a test whose processes compute with one thread, on small models.
pub fn share() -> Turn {
    Turn::take(1)
}

/// The whole machine: for a test that measures time, or computes with many threads.
pub fn alone() -> Turn {
    Turn::take(CORES)
}

struct Queue {
    taken: usize,
    /// Numbers of those that wait, in the order in which they came.
    waiting: VecDeque<u64>,
    next: u64,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { taken: 0, waiting: VecDeque::new(), next: 0 });
static CHANGED: Condvar = Condvar::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turn {
    /// Waits for `cores`. Whoever came first is first, so that none waits for ever.
    fn take(cores: usize) -> Self {
        let mut queue = queue();
        let own = queue.next;
        queue.next += 1;
        queue.waiting.push_back(own);
        while queue.waiting.front() != Some(&own) || queue.taken + cores > CORES {
            queue = CHANGED.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.waiting.pop_front();
        queue.taken += cores;
        CHANGED.notify_all();
        Self { cores }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        queue().taken -= self.cores;
        CHANGED.notify_all();
    }
}
