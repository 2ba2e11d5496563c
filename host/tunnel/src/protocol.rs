//! What both ends of a tunnel must agree on.

use std::time::Duration;

/// What a tunnel asks the worker to upgrade its connection to.
pub const UPGRADE: &str = "tightwad-rpc/1";

/// How often both ends say that they live.
pub(crate) const BEAT: Duration = Duration::from_secs(1);
/// Silence after which the other end is lost: longer than a switch or an access point takes to come back.
pub(crate) const SILENCE: Duration = Duration::from_secs(12);
/// Bytes read at once.
pub(crate) const PIECE: usize = 256 << 10;
