//! Tests of the engine with real models.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod admission;
mod architectures;
mod heads;
mod scheduler;
mod support;
mod text;
