//! Swarm: models spread from machine to machine.

pub(crate) mod component;
pub(crate) mod files;
pub(crate) mod names;
pub(crate) mod pull;
pub(crate) mod spec;

pub use files::open_complete;
pub use pull::{find_seeders, machine_key, pull};
pub use spec::{PullSpec, PulledModel, SwarmError};
