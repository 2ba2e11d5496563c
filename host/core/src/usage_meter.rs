//! Token counts of a request that still runs.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::event::Usage;

/// Counts the tokens of a request while it runs. So the tokens of a cancelled request, which has no outcome, count
/// too. All sessions that work for the request share the meter.
#[derive(Debug, Default)]
pub struct UsageMeter {
    prompt_tokens: AtomicU32,
    completion_tokens: AtomicU32,
}

impl UsageMeter {
    /// Adds the prompt of an opened session.
    pub fn add_prompt(&self, tokens: u32) {
        self.prompt_tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    /// Adds a committed token.
    pub fn add_token(&self) {
        self.completion_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// The tokens so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens.load(Ordering::Relaxed),
            completion_tokens: self.completion_tokens.load(Ordering::Relaxed),
            cached_tokens: 0,
        }
    }
}
