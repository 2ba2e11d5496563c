//! Lua scripts: which models exist, which modes stack on which, what happens to a request.
//!
//! A script runs in a sandbox: no files, no processes, limited memory, and no more than a second of
//! its own computing between two calls into the host.

mod api;
mod error;
mod factory;
mod handle;
mod keys;
mod limits;
mod loader;
mod pipeline;
mod request;
mod sandbox;

pub use api::{REVIEW_PROMPT, check_fallback};
pub use error::ScriptError;
pub use factory::{
    ConsensusSpec, Factory, GateSpec, LentSpec, LookupSpec, ModelSpec, PluginSpec, SpeculationSpec,
    SwarmSource,
};
pub use loader::{Script, load, load_text};
