//! Peers: seeding and pulling over HTTP.

pub(crate) mod catalog;
pub(crate) mod client;
pub(crate) mod exchange;
pub(crate) mod peer;
pub(crate) mod pull;
pub(crate) mod rate_limit;
pub(crate) mod seed;
pub(crate) mod wire;

pub use catalog::{AvailableModel, ManifestUnavailable, fetch_manifest, find_models};
pub use client::{Client, ReplyLimits, RequestError};
pub use peer::{MAX_PEERS_PER_ADDRESS, Peer, PeerAddressError};
pub use pull::limits::{PullLimits, Seeding};
pub use pull::report::{Progress, PullError, PullSummary};
pub use pull::start::Pull;
pub use rate_limit::RateLimit;
pub use seed::seeds::Seeds;
pub use seed::server::{router, serve};
pub use seed::state::SeedState;
pub use wire::{Announce, Have, ModelListing, PeerList};
