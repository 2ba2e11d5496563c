//! Lua scripts. A script declares the models, stacks modes on them, and handles requests with functions.
//!
//! A script runs in a sandbox on its own thread, without access to files and processes. Its memory is limited. Between
//! two waits for the host, a script can compute for one second. The host abandons a Lua state that computes longer, and
//! runs the script again in a new state.

mod abandoned_threads;
mod api;
mod argument;
mod call;
#[cfg(test)]
mod documents;
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
#[cfg(test)]
mod presets;
mod priority;
mod record;
mod request;
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
pub use loader::{Script, declared_arguments, load, load_text};
