//! Peers: seeding and pulling over HTTP.

mod ask;
mod client;
mod limit;
mod peer;
mod pull;
mod seed;
mod wire;

pub use ask::{Candidate, NoManifest, fetch_manifest, find};
pub use client::{AskError, Client};
pub use limit::RateLimit;
pub use peer::{Peer, PeerError};
pub use pull::{Limits, Progress, Pull, PullError, Seeding, Summary};
pub use seed::{SeedState, Seeds, router, serve};
pub use wire::{Announce, Have, Known, Listed};
