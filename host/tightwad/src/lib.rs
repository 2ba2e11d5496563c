//! The host behind the `tightwad` binary.
//!
//! One folder a concern, one direction of dependence:
//! `types` <- `backend` <- `plugin` <- `mode` <- `script` <- `server` <- `cli`.

pub mod backend;
pub mod cli;
pub mod mode;
pub mod plugin;
pub mod script;
pub mod server;
pub mod types;
pub mod watch;
