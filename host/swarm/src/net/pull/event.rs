//! Events that watchers and fetches send to the driver of their pull.

use std::net::SocketAddr;

use crate::net::pull::fetch::End;
use crate::net::pull::work::FetchId;

/// The address that a peer answers from.
pub(crate) type Address = Option<SocketAddr>;

/// An event of a peer or of a fetch.
pub(crate) enum PeerEvent {
    /// A source is there, has these pieces, and fetches those.
    Have {
        source: usize,
        address: Address,
        seeder: Option<String>,
        pieces: Vec<(u32, u32)>,
        coming: Vec<(u32, u32)>,
    },
    /// A source does not answer; `gone`: for so long that it counts as lost; `over`: nobody asks it again.
    Silent { source: usize, why: String, gone: bool, over: bool },
    /// A source will not serve this machine.
    Shut { source: usize, why: String },
    /// A source knows these.
    Learned(Vec<String>),
    /// A fetch is over.
    Ended(FetchId, End),
}
