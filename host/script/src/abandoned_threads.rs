//! Counts the threads of abandoned Lua states, by script and function.
//!
//! The host cannot stop a C function of Lua, so such a thread computes until the function returns. The count outlives
//! reloads of a script: a reload must not add threads without a bound.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, Weak};

use tightwad_core::sync;

/// The maximum number of abandoned threads per function.
pub(crate) const MAX_THREADS: usize = 4;

/// Abandoned threads, by the script's name and the function's model. A thread's entry upgrades while the thread lives.
type Threads = HashMap<(String, String), Vec<Weak<()>>>;

static THREADS: LazyLock<Mutex<Threads>> = LazyLock::new(Mutex::default);

/// Records a thread that the function of `model` keeps busy. `alive` upgrades while the thread lives.
pub(crate) fn record(script: &str, model: &str, alive: &Weak<()>) {
    let mut threads = sync::lock(&THREADS);
    let function_threads = threads.entry((script.to_owned(), model.to_owned())).or_default();
    if !function_threads.iter().any(|recorded| recorded.ptr_eq(alive)) {
        function_threads.push(alive.clone());
    }
}

/// The number of abandoned threads of the function of `model` that still run.
pub(crate) fn count(script: &str, model: &str) -> usize {
    let mut threads = sync::lock(&THREADS);
    threads.retain(|_, function_threads| {
        function_threads.retain(|alive| alive.strong_count() > 0);
        !function_threads.is_empty()
    });
    threads.get(&(script.to_owned(), model.to_owned())).map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn thread_counts_once_until_it_ends() {
        let (first, second) = (Arc::new(()), Arc::new(()));
        for alive in [&first, &first, &second] {
            record("a.lua", "m", &Arc::downgrade(alive));
        }
        assert_eq!((count("a.lua", "m"), count("a.lua", "n"), count("b.lua", "m")), (2, 0, 0));
        drop(first);
        assert_eq!(count("a.lua", "m"), 1);
    }
}
