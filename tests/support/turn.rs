//! Tests take turns on the processor cores. More computing threads than cores slow all tests down many times over.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The cores that tests share.
const CORES: usize = 2;

/// The right to use some cores. Any thread can drop it, which frees the cores.
pub struct CorePermit {
    cores: usize,
}

/// Waits for one core: for a test whose processes compute with one thread, on small models.
pub fn one_core() -> CorePermit {
    CorePermit::acquire(1)
}

/// Waits for all cores: for a test that measures time, or computes with many threads.
pub fn all_cores() -> CorePermit {
    CorePermit::acquire(CORES)
}

struct Queue {
    cores_in_use: usize,
    /// The ticket of the next test that comes.
    next_ticket: u64,
    /// The ticket of the test that starts next.
    now_serving: u64,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { cores_in_use: 0, next_ticket: 0, now_serving: 0 });
static CHANGED: Condvar = Condvar::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CorePermit {
    /// Waits for `cores`. First come, first served: no test waits forever.
    fn acquire(cores: usize) -> Self {
        let mut queue = queue();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        while queue.now_serving != ticket || queue.cores_in_use + cores > CORES {
            queue = CHANGED.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.now_serving += 1;
        queue.cores_in_use += cores;
        CHANGED.notify_all();
        Self { cores }
    }
}

impl Drop for CorePermit {
    fn drop(&mut self) {
        queue().cores_in_use -= self.cores;
        CHANGED.notify_all();
    }
}
