//! Runs the built-in components and the fixtures in the sandbox, with fake models.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod library;
mod requests;
mod swarm;
