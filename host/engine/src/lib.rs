//! llama.cpp in process: continuous batching, exact verification, sampling.

mod constraint;
pub mod sampling;

pub use constraint::{Constraint, ConstraintError};
pub use sampling::{Sampling, SamplingSpec, TokenId, TokenLogprobs};
