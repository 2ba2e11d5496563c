//! Choosing a token from logits.
//!
//! Every token is `argmax over the kept tokens of (log p + g)`, where `g` is Gumbel noise that
//! depends on nothing but `(seed, position, token id)` (Gumbel coupling: Daliri, Musco, Suresh,
//! arXiv:2408.07978). Greedy is the case `g = 0`. Drafter and target use the same noise, so the
//! output is the target's own at every temperature, whatever drafted it.
//!
//! The order is: logit bias, penalties, grammar mask, temperature, top-k, top-p, min-p, noise.

mod choice;
mod history;
mod logprobs;
mod noise;
mod params;

pub use choice::{Choice, Context, Picker};
pub use history::History;
pub use logprobs::{TokenLogprobs, logprobs};
pub use noise::{gumbel, philox4x32};
pub use params::{InvalidSampling, Sampling, SamplingSpec};

/// The id of a token in a model's vocabulary.
pub type TokenId = u32;
