//! The parameters of a session.

use std::sync::Arc;

use tightwad_core::{Sampling, TokenId};

use crate::constraint::Constraint;

/// The parameters of a session.
#[derive(Clone)]
pub struct SessionParams {
    /// The prompt; not empty.
    pub prompt: Vec<TokenId>,
    /// Output that another session has already generated. This session continues after it.
    pub output: Vec<TokenId>,
    /// The sampling settings.
    pub sampling: Sampling,
    /// The constraint on the output, in its initial state.
    pub constraint: Option<Arc<Constraint>>,
    /// Maximum number of tokens to generate, including `output`.
    pub max_tokens: u32,
    /// True: the engine evaluates the prompt before it replies to the opening (targets). False: the first
    /// work evaluates the prompt (drafters, because some never get work).
    pub prefill: bool,
}
