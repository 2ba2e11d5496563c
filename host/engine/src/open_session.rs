//! What a session is opened with.

use tightwad_core::{Sampling, TokenId};

use crate::constraint::Constraint;

/// What to open.
#[derive(Clone)]
pub struct OpenSession {
    /// The prompt; not empty.
    pub prompt: Vec<TokenId>,
    /// What was generated after it already, elsewhere: generation goes on behind it.
    pub output: Vec<TokenId>,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// What the output must look like.
    pub constraint: Option<Constraint>,
    /// Most tokens to generate, `output` included.
    pub max_tokens: u32,
    /// Evaluate the prompt before the opening is answered (targets), or with the first work
    /// (drafters, which may never be asked).
    pub prefill: bool,
}
