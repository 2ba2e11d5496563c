//! How long calls may take.

use std::time::Duration;

/// Least time for a call that computes, and how many times what was expected it may take: the node may
/// be busy with others.
const MIN_CALL_TIMEOUT: Duration = Duration::from_secs(4);
const SLACK: u32 = 20;
/// Time for opening a session: it waits its turn and reads the prompt.
pub(crate) const OPENING: Duration = Duration::from_secs(20);
/// Time for a call that computes nothing.
pub(crate) const QUICK: Duration = Duration::from_secs(10);

/// How long a call that should take `expected` may take.
pub(crate) fn limit(expected: Duration) -> Duration {
    MIN_CALL_TIMEOUT.max(expected * SLACK)
}
