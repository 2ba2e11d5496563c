//! Timeouts of calls to a node.

use std::time::Duration;

/// The shortest timeout of a call that computes.
const MIN_CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// The timeout as a multiple of the expected time: the node may be busy with other requests.
const TIMEOUT_FACTOR: u32 = 20;
/// The timeout of opening a session, which waits for a sequence and processes the prompt.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// The timeout of a call that runs no forward pass.
pub(crate) const QUICK_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout of a call that is expected to take `expected`.
pub(crate) fn call_timeout(expected: Duration) -> Duration {
    MIN_CALL_TIMEOUT.max(expected * TIMEOUT_FACTOR)
}
