//! Threads of Lua states that were given up, by script and function.
//!
//! Nothing can stop a C function of Lua, so such a thread computes on until it ends by itself. The list outlives
//! reloads of a script: reloading must not add threads without a bound.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, Weak};

use tightwad_core::sync;

/// Threads that one function may keep busy for nothing.
pub(crate) const MAX_ABANDONED: usize = 4;

/// By the names of the script and of the function's model. An entry upgrades as long as its thread lives.
type Threads = HashMap<(String, String), Vec<Weak<()>>>;

static THREADS: LazyLock<Mutex<Threads>> = LazyLock::new(Mutex::default);

/// Notes that the function of `model` froze the thread that is `alive`.
pub(crate) fn note(script: &str, model: &str, alive: &Weak<()>) {
    let mut threads = sync::lock(&THREADS);
    let own = threads.entry((script.to_owned(), model.to_owned())).or_default();
    if !own.iter().any(|known| known.ptr_eq(alive)) {
        own.push(alive.clone());
    }
}

/// Threads that the function of `model` froze, and that still run.
pub(crate) fn count(script: &str, model: &str) -> usize {
    let mut threads = sync::lock(&THREADS);
    threads.retain(|_, own| {
        own.retain(|alive| alive.strong_count() > 0);
        !own.is_empty()
    });
    threads.get(&(script.to_owned(), model.to_owned())).map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_thread_counts_once_and_until_it_ends() {
        let (one, two) = (Arc::new(()), Arc::new(()));
        for life in [&one, &one, &two] {
            note("a.lua", "m", &Arc::downgrade(life));
        }
        assert_eq!((count("a.lua", "m"), count("a.lua", "n"), count("b.lua", "m")), (2, 0, 0));
        drop(one);
        assert_eq!(count("a.lua", "m"), 1);
    }
}
