//! Settings of plugins, consensus policies and gates.

use std::time::Duration;

/// A plugin that a script names: a driver or a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PluginSpec {
    /// The plugin's name, or the path of its file.
    pub name: String,
    /// The SHA-256 that the file must have, as hexadecimal digits.
    pub sha256: Option<String>,
}

/// The reaction to a failure of the policy plugin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The target decodes the next tokens without drafts.
    Decode,
    /// The target verifies the drafts.
    #[default]
    Verify,
    /// The request fails.
    Error,
}

/// The reaction to the loss of the reviewer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnReviewerLost {
    /// The request fails.
    #[default]
    Error,
    /// The client receives a candidate, and the response marks the candidate as unreviewed.
    PassUnreviewed,
}

/// The methods of a review. At least one method is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReviewMethods {
    /// The reviewer scores the candidate's tokens.
    pub score: bool,
    /// The reviewer judges the candidate in words.
    pub judge: bool,
}

/// The configuration of a gate's cache of reviews.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSpec {
    /// The maximum number of reviews.
    pub max_entries: u64,
    /// The maximum age of a review. A limit is necessary because another model can appear under the reviewer's name.
    pub max_age: Duration,
    /// True when the cache also stores reviews of requests with random sampling.
    pub sampled: bool,
}

impl Default for CacheSpec {
    fn default() -> Self {
        Self { max_entries: 256, max_age: Duration::from_secs(600), sampled: false }
    }
}
