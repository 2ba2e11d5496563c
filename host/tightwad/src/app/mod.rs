//! Composition: what scripts and commands ask for, made of the other crates.

pub(crate) mod control;
pub(crate) mod factory;
pub(crate) mod gauges;
pub(crate) mod progress;
pub(crate) mod pulls;
pub(crate) mod shelf;
pub(crate) mod watch;
