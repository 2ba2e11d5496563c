//! The usage of one key.
//!
//! Invariant: `tokens` are the tokens of `day`. The first tokens of another day replace both.

use time::{Date, OffsetDateTime};

/// The usage of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyUsage {
    /// The day of the last charge, UTC.
    day: Date,
    /// Prompt and completion tokens on that day.
    tokens: u64,
    /// The time at which the bucket of requests is full again.
    pub(crate) requests_full_at: OffsetDateTime,
}

impl KeyUsage {
    /// The usage of `tokens` on `day`.
    pub(crate) fn new(day: Date, tokens: u64, requests_full_at: OffsetDateTime) -> Self {
        Self { day, tokens, requests_full_at }
    }

    /// The usage of a key that is new at `now`.
    pub(crate) fn unused(now: OffsetDateTime) -> Self {
        Self::new(now.date(), 0, now)
    }

    /// The day of the last charge, UTC.
    pub(crate) fn day(&self) -> Date {
        self.day
    }

    /// The tokens on `day`.
    pub(crate) fn tokens_on(&self, day: Date) -> u64 {
        if self.day == day { self.tokens } else { 0 }
    }

    /// Adds `tokens` to those of `day`.
    pub(crate) fn add_tokens(&mut self, day: Date, tokens: u64) {
        self.tokens = self.tokens_on(day).saturating_add(tokens);
        self.day = day;
    }

    /// True if nothing of the usage limits a request at `now` or later.
    pub(crate) fn is_over(&self, now: OffsetDateTime) -> bool {
        self.tokens_on(now.date()) == 0 && self.requests_full_at <= now
    }
}
