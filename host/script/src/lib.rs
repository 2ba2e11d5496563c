//! Lua scripts: which models exist, which modes stack on which, what happens to a request.
//!
//! A script runs in a sandbox, on a thread of its own: no files, no processes, limited memory, and at most a
//! second of computing until it waits for the host. A state that takes longer is given up, and the script is run
//! again on a new one.

mod abandoned;
mod api;
mod call;
mod error;
mod factory;
#[cfg(test)]
mod fake_factory;
mod fallback;
mod handle;
mod keys;
mod limits;
mod loader;
mod pipeline;
mod priority;
mod record;
mod request;
mod sandbox;
mod state;
mod table_error;

pub use api::gate::REVIEW_PROMPT;
pub use error::ScriptError;
pub use factory::{
    ConsensusSpec, Factory, FactoryError, GateSpec, LentSpec, LookupSpec, ModelSpec, PluginSpec,
    SpeculationSpec, SwarmSource,
};
pub use fallback::{FallbackError, check_fallback};
pub use loader::{Script, load, load_text};
