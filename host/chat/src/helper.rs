//! The helper process: it answers requests on standard input until that ends.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::native;

/// The processor time that a request may take.
pub(crate) const MAX_CPU_SECONDS: u64 = 2;
/// The memory of the process, stacks included.
const MAX_MEMORY_BYTES: u64 = 2 << 30;
/// The C++ side recurses over templates, JSON and text.
pub(crate) const STACK_BYTES: usize = 256 << 20;
/// The interval in which the watchdog looks at the processor time.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// In place of the start of a request: there is no request.
const IDLE: u64 = u64::MAX;
/// In place of the start of a request: the watchdog has answered it.
const EXPIRED: u64 = u64::MAX - 1;

/// Answers requests until standard input ends. Returns the exit code.
#[must_use]
pub fn run_helper() -> i32 {
    restrict_process();
    let start = Arc::new(AtomicU64::new(IDLE));
    let watched = start.clone();
    let watchdog = thread::Builder::new().spawn(move || watch(&watched));
    let worker = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || answer_all(&start));
    let done = watchdog.is_ok() && worker.is_ok_and(|worker| worker.join().is_ok());
    i32::from(!done)
}

fn answer_all(start: &AtomicU64) {
    for request in std::io::stdin().lock().lines() {
        let Ok(request) = request else { return };
        start.store(processor_nanoseconds(), Ordering::Release);
        let answer = native::answer(&request);
        if start.swap(IDLE, Ordering::AcqRel) == EXPIRED {
            return;
        }
        let answer = answer.unwrap_or_else(|| json!({"refused": "it needs too much memory"}).to_string());
        if write_line(&answer).is_err() {
            return;
        }
    }
}

/// Ends the process when a request takes too much processor time.
fn watch(start: &AtomicU64) {
    loop {
        thread::park_timeout(WATCH_INTERVAL);
        let begun = start.load(Ordering::Acquire);
        let used = processor_nanoseconds().saturating_sub(begun);
        let is_slow = begun != IDLE && used > MAX_CPU_SECONDS * 1_000_000_000;
        // The request may have ended since.
        if is_slow && start.compare_exchange(begun, EXPIRED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let _ = write_line(&json!({"too_slow": MAX_CPU_SECONDS}).to_string());
            // No destructor may run while the other thread computes.
            std::process::abort();
        }
    }
}

fn write_line(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{text}")?;
    output.flush()
}

/// The processor time of this process.
fn processor_nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    u64::try_from(nanoseconds).unwrap_or(0)
}

/// Limits the memory, and writes no core file. The process ends with its parent, because its standard input ends. A death
/// signal would come too early: it comes at the end of the parent's thread, not of the parent.
fn restrict_process() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
        // Each of these is a precaution; the helper works without it.
        let _ = setrlimit(Resource::Core, limit(0));
        let _ = setrlimit(Resource::Data, limit(MAX_MEMORY_BYTES));
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    }
}
