//! Composition: backends for scripts and commands, made from the other crates.

pub(crate) mod control;
pub(crate) mod factory;
pub(crate) mod metrics;
pub(crate) mod plugin_folders;
pub(crate) mod progress;
pub(crate) mod pulls;
