//! The host behind the `tightwad` binary: the command line, and the composition of the other crates.

mod app;
pub mod cli;
