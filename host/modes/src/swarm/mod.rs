//! Swarm: models spread from machine to machine.

pub(crate) mod component;
pub(crate) mod files;
pub(crate) mod pull;

pub use files::whole;
pub use pull::{PullSpec, Pulled, SwarmError, pull, seeders};
