//! llama.cpp in process: continuous batching, exact verification, sampling.
//!
//! An [`Engine`] is one model, one llama.cpp context and the thread that owns the context. A [`Session`] is
//! one sequence on an engine. For each forward pass, the thread merges the ready work of all sessions into
//! one batch: prefill chunks, decodes, proposals and verifications.
//!
//! **Exactness.** On CPUs, a row's result does not depend on the number of rows in the batch. The
//! row-invariant kernels of this crate (`llama/kernels`) ensure this. Other operations use row-invariant
//! kernels of ggml. One verification pass over many tokens then gives the same logits, bit for bit, as many
//! one-token passes. Each engine measures the difference when it loads. If there is a difference (GPUs), a
//! one-token pass decides a position again when its margin is below the measured threshold.

mod backend;
mod config;
mod constraint;
mod engine;
mod error;
mod file;
mod llama;
mod memory;
pub mod pool;
mod protected_text;
mod quantize;
mod runtime;
pub mod sampling;
mod scheduler;
mod session;
mod session_params;
mod sizing;
mod special_tokens;
mod template;
mod text;
mod vocabulary_digest;
mod weights;

pub use llguidance::api::TopLevelGrammar;

pub use backend::{Llama, Vocabulary, WeightsTokenizer};
pub use config::EngineConfig;
pub use constraint::{Constraint, ConstraintError};
pub use engine::Engine;
pub use error::{LoadError, SessionError};
pub use file::trial::{enable_trials, try_model};
pub use quantize::{InvalidQuantization, Quantization, quantize};
pub use runtime::{cpu_count, exit, select_row_invariant_kernels};
pub use scheduler::stats::Stats;
pub use session::Session;
pub use session_params::SessionParams;
pub use template::{ChatTemplate, TemplateError};
pub use text::{TextError, TextThread, on_text_thread};
pub use weights::Weights;
