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
pub use pull::limits::{Limits, Seeding};
pub use pull::report::{Progress, PullError, Summary};
pub use pull::start::Pull;
pub use seed::seeds::Seeds;
pub use seed::server::{router, serve};
pub use seed::state::SeedState;
pub use wire::{Announce, Have, Known, Listed};
