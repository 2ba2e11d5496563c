//! Choosing a token from logits.
//!
//! Every token is `argmax over the kept tokens of (log p + g)`, where `g` is Gumbel noise that
//! depends on nothing but `(seed, position, token id)` (Gumbel coupling: Daliri, Musco, Suresh,
//! arXiv:2408.07978). Greedy is the case `g = 0`. Drafter and target use the same noise, so the
//! output is the target's own at every temperature, whatever drafted it.
//!
//! The order is: logit bias, penalties, grammar mask, temperature, top-k, top-p, min-p, noise.

pub(crate) mod choice;
pub(crate) mod history;
pub(crate) mod logprobs;
pub(crate) mod noise;

pub use choice::{Choice, Context, Picker};
pub use history::History;
pub use logprobs::logprobs;
pub use noise::{gumbel, philox4x32};
