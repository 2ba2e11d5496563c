//! Lua scripts. A script declares the models, stacks modes on them, and handles requests with functions.
//!
//! A script runs in a sandbox, without access to files and processes. Each function has a Lua state of its own, on a
//! thread of its own. Memory is limited per request. Between two waits for the host, a script can compute for one
//! second. The host abandons a Lua state that computes longer, and runs the script again in a new state.

mod abandoned_threads;
mod api;
mod argument;
mod call;
mod changes;
#[cfg(test)]
mod documents;
mod error;
mod factory;
#[cfg(test)]
mod fake_factory;
mod fallback;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod json;
mod keys;
mod limits;
mod loader;
mod made_values;
mod pipeline;
#[cfg(test)]
mod presets;
mod priority;
mod record;
mod request;
mod require;
mod sandbox;
mod source;
mod state;
#[cfg(test)]
mod stub;
mod table_error;

pub use api::gate::DEFAULT_JUDGE_PROMPT;
pub use argument::{Argument, argument_table};
pub use error::ScriptError;
pub use factory::{
    ConsensusSpec, Factory, FactoryError, GateSpec, LookupSpec, ModelSpec, NodeBackendSpec, SpeculationSpec,
    SwarmSource,
};
pub use fallback::{FallbackError, check_fallback};
pub use loader::{Script, declared_arguments, load, load_text, load_watched};
