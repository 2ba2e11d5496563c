//! Unknown model files: broken, incomplete, split, or of another kind.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod digest;
mod parts;
mod refusals;
mod support;
mod trial;
