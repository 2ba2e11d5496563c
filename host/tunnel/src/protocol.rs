//! Constants that both ends of a tunnel must agree on.

use std::time::Duration;

/// The protocol in the `Upgrade` header of a request for a tunnel.
pub const UPGRADE_PROTOCOL: &str = "tightwad-rpc/1";

/// The time between two heartbeats of one end.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// The time without data after which the other end counts as lost. It is longer than the restart of a switch or an
/// access point.
pub(crate) const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(12);
/// The size of the buffer of a reader.
pub(crate) const READ_BUFFER_BYTES: usize = 256 << 10;
