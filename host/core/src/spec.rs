//! What scripts say of consensus policies and gates.

use std::time::Duration;

/// What a script wants when its policy plugin fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The target generates the next tokens plainly.
    Decode,
    /// The target verifies what was proposed.
    #[default]
    Verify,
    /// The request fails.
    Error,
}

/// What a script wants when the reviewer is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnReviewerLost {
    /// The request fails.
    #[default]
    Error,
    /// A candidate is passed on, and the response says that nobody reviewed it.
    PassLabelled,
}

/// Ways of reviewing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ways {
    /// The reviewer's probabilities of the answer's tokens.
    pub score: bool,
    /// The reviewer's own words.
    pub judge: bool,
}

/// What a script wants of a gate's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSpec {
    /// Most reviews.
    pub entries: u64,
    /// How long one is kept: a reviewer may change behind its name.
    pub lives: Duration,
    /// Also those of requests whose tokens are drawn at random.
    pub sampled: bool,
}

impl Default for CacheSpec {
    fn default() -> Self {
        Self { entries: 256, lives: Duration::from_secs(600), sampled: false }
    }
}
