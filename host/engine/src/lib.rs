//! llama.cpp in process: continuous batching, exact verification, sampling.
//!
//! An [`Engine`] is one model, one llama.cpp context and the thread that owns it. A [`Session`] is
//! one sequence on it. Each tick the thread merges the ready work of all sessions (prefill chunks,
//! decodes, proposals, verifications) into one batch.
//!
//! **Exactness.** On CPUs a row's result does not depend on how many rows share the batch, by kernels of
//! this crate (`llama/kernels`) and, where they do not apply, by those of ggml's that are so. Verifying many
//! tokens in one pass then gives bit for bit the logits of many one-token passes. Each engine measures that
//! when it loads; where it does not hold (GPUs), positions closer than the measured threshold are decided
//! again by a one-token pass.

mod backend;
mod config;
mod constraint;
mod engine;
mod error;
mod header;
mod llama;
mod memory;
mod open_session;
pub mod pool;
mod quantize;
mod runtime;
pub mod sampling;
mod scheduler;
mod session;
mod sizing;
mod specials;
mod template;
mod text;
mod weights;

pub use llguidance::api::TopLevelGrammar;

pub use backend::{Llama, Vocabulary, WeightsTokenizer};
pub use config::EngineConfig;
pub use constraint::{Constraint, ConstraintError};
pub use engine::Engine;
pub use error::{LoadError, SessionError};
pub use open_session::OpenSession;
pub use quantize::{InvalidQuantization, Quantization, quantize};
pub use runtime::{exit, prepare, processors};
pub use scheduler::stats::Stats;
pub use session::Session;
pub use template::{ChatTemplate, TemplateError};
pub use text::{TextError, TextThread, on_text_thread};
pub use weights::Weights;
