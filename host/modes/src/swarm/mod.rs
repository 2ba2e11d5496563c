//! Swarm: models spread from machine to machine.

pub(crate) mod component;
pub(crate) mod files;
pub(crate) mod pull;
pub(crate) mod spec;

pub use files::whole;
pub use pull::{pull, seeders};
pub use spec::{PullSpec, Pulled, SwarmError};
