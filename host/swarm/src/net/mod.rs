//! Peers: seeding and pulling over HTTP.

pub(crate) mod ask;
pub(crate) mod client;
pub(crate) mod limit;
pub(crate) mod peer;
pub(crate) mod pull;
pub(crate) mod seed;
pub(crate) mod wire;

pub use ask::{Candidate, NoManifest, fetch_manifest, find};
pub use client::{AskError, Client};
pub use limit::RateLimit;
pub use peer::{Peer, PeerError};
pub use pull::report::{Progress, PullError, Summary};
pub use pull::{Limits, Pull, Seeding};
pub use seed::seeds::Seeds;
pub use seed::{SeedState, router, serve};
pub use wire::{Announce, Have, Known, Listed};
