//! Tests take turns: more threads that compute than cores would slow all of them down many times over.

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
    /// Cores in use.
    taken: usize,
    /// The number that the next test to come gets.
    last: u64,
    /// The number of the test that goes next.
    first: u64,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { taken: 0, last: 0, first: 0 });
static CHANGED: Condvar = Condvar::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turn {
    /// Waits for `cores`: first come, first served, so that no test waits forever.
    fn take(cores: usize) -> Self {
        let mut queue = queue();
        let own = queue.last;
        queue.last += 1;
        while queue.first != own || queue.taken + cores > CORES {
            queue = CHANGED.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.first += 1;
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
