//! Events that watchers and fetches send to the driver of their pull.

use std::net::SocketAddr;

use crate::net::pull::fetch::FetchEnd;
use crate::net::pull::piece_blocks::FetchId;

/// The address that a peer answers from, if known.
pub(crate) type Address = Option<SocketAddr>;

/// An event of a peer or of a fetch. `peer_index` is the peer's index in the peer table.
pub(crate) enum PeerEvent {
    /// A peer answered: it has `pieces`, and itself fetches `in_progress`. Both are runs of pieces.
    Have {
        peer_index: usize,
        address: Address,
        /// The id of the peer's seeder. Web seeds have none.
        seeder: Option<String>,
        pieces: Vec<(u32, u32)>,
        in_progress: Vec<(u32, u32)>,
    },
    /// A request to a peer failed.
    Failed {
        peer_index: usize,
        reason: String,
        /// The peer failed so often that it counts as disconnected.
        disconnected: bool,
        /// The watcher ended and does not ask the peer again.
        abandoned: bool,
    },
    /// A peer refuses to serve this machine, or cannot serve the file.
    Rejected { peer_index: usize, reason: String },
    /// A peer told addresses by peer exchange.
    Exchanged { peer_index: usize, addresses: Vec<String> },
    /// A fetch ended.
    FetchEnded(FetchId, FetchEnd),
}
