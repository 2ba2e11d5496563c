//! Checks of unknown model files.
//!
//! llama.cpp's loader trusts a file in many places: it aborts the process, or reads outside of an array. So this module
//! checks a file in Rust first (`model_file.rs`, `content.rs`). An unknown file is then loaded in a child process
//! (`trial.rs`), which may crash. `known.rs` remembers the files that passed.

pub(crate) mod content;
pub(crate) mod digest;
pub(crate) mod known;
pub(crate) mod level;
pub(crate) mod model_file;
pub(crate) mod trial;
