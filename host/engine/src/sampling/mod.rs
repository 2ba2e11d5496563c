//! Chooses tokens from logits.
//!
//! Each token is `argmax over the kept tokens of (log p + g)`. The Gumbel noise `g` depends only on `(seed,
//! position, token id)` (Gumbel coupling: Daliri, Musco, Suresh, arXiv:2408.07978). Greedy sampling is the
//! case `g = 0`. Drafter and target use the same noise. So at every temperature the output is the target's
//! own choice, independent of the draft.
//!
//! The order is: logit bias, penalties, grammar mask, temperature, top-k, top-p, min-p, noise.

pub(crate) mod history;
pub(crate) mod logprobs;
pub(crate) mod noise;
pub(crate) mod sampler;

pub use history::History;
pub use logprobs::logprobs;
pub use noise::{gumbel, philox4x32};
pub use sampler::{SampleContext, SampledToken, Sampler};
