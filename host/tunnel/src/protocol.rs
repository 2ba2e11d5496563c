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

/// The maximum size of a part of a tensor. A worker relays tensors in parts, so it never holds a complete one.
pub(crate) const MAX_PART_BYTES: u64 = 1 << 20;
/// The maximum body of a reply frame: a part of a tensor after the length of the reply.
pub(crate) const MAX_REPLY_FRAME_BYTES: u64 = 8 + MAX_PART_BYTES;
/// The maximum number of cached tensors that a worker lists.
pub(crate) const MAX_LISTED_TENSORS: usize = 256 << 10;
/// The maximum body of the frame that lists cached tensors.
pub(crate) const MAX_CACHED_FRAME_BYTES: u64 = 32 * MAX_LISTED_TENSORS as u64;
/// The maximum body of an error frame.
pub(crate) const MAX_ERROR_FRAME_BYTES: u64 = 4 << 10;
/// The maximum body of a tensor that llama.cpp sends to the host's end of a tunnel.
pub(crate) const MAX_TENSOR_BYTES: u64 = 64 << 30;
/// The maximum length of a reason in an error message, in bytes.
pub(crate) const MAX_REASON_BYTES: usize = 500;
