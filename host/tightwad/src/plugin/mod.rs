//! The plugin host: components that decide, under limits, through the functions of `wit/`.
//!
//! One instance serves one request, or one question to a policy. Whatever a component does, the
//! request's [`Job`] comes back from [`Plugin::run`], so that the host can finish it by plain decoding.

mod bindings;
mod clock;
mod component;
mod contract;
mod decoding;
mod engine;
mod error;
mod job;
mod library;
mod limits;
mod log;
mod placement;
mod state;
mod store;

pub use component::Plugin;
pub use engine::PluginEngine;
pub use error::PluginError;
pub use job::{Job, Tally};
pub use library::Library;
pub use limits::Limits;
pub use placement::PlacementPlugin;
