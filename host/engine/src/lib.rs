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

mod constraint;
mod draft;
mod engine;
mod error;
mod llama;
mod memory;
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

pub use constraint::{Constraint, ConstraintError};
pub use draft::{Draft, InvalidTree};
pub use engine::{Engine, EngineConfig};
pub use error::{LoadError, SessionError};
pub use llguidance::api::TopLevelGrammar;
pub use quantize::{Quantization, quantize};
pub use runtime::{prepare, processors};
pub use sampling::{InvalidSampling, Sampling, SamplingSpec, TokenId, TokenLogprobs};
pub use scheduler::Stats;
pub use session::{Committed, Finish, OpenSession, Proposal, Scored, Session, Verified};
pub use template::{ChatTemplate, TemplateError};
pub use text::{TextError, TextThread, on_text_thread};
pub use weights::Weights;
