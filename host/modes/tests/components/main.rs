//! The built-in components and the fixtures, in the sandbox, with fakes for models.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod driven;
mod library;
mod swarm;
