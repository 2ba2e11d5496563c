//! Drafting with another vocabulary: the draft is exchanged as text and tokenized again in the target's vocabulary.
//!
//! The answer stays exact, because the target verifies the draft. Such a drafter is slower than a drafter of the
//! target's family, and its acceptance rate is lower.

use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::{Backend, DrafterSource, SharedBackend};
use crate::error::BackendError;
use crate::session::{Device, DraftCost, Drafter, PreparedRequest, Tokenizer};
use crate::tokenize_draft::tokenize_draft;
use crate::tokens::{Proposal, TokenId};

/// Translates the drafts of `inner` to the target's vocabulary.
pub struct TranslatingBackend {
    inner: SharedBackend,
    tokenizer: Arc<dyn Tokenizer>,
}

impl TranslatingBackend {
    /// Translates the drafts of `inner`; `None` if `inner` has no tokenizer.
    #[must_use]
    pub fn new(inner: SharedBackend) -> Option<Self> {
        let tokenizer = inner.as_target()?.tokenizer()?;
        Some(Self { inner, tokenizer })
    }
}

impl Backend for TranslatingBackend {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        Some(self)
    }
}

#[async_trait]
impl DrafterSource for TranslatingBackend {
    async fn open_drafter(&self, request: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        // The drafter renders the prompt with its own chat template. The same text can need more tokens in the
        // vocabulary of the drafter: three times as many are enough.
        let mut prepared = self.inner.target()?.prepare(&request.request).await?;
        prepared.max_tokens = request.max_tokens.saturating_mul(3);
        Ok(Box::new(TranslatingDrafter {
            drafter: self.inner.drafter()?.open_drafter(&prepared).await?,
            drafter_tokenizer: self.tokenizer.clone(),
            target_tokenizer: request.tokenizer.clone(),
        }))
    }
}

struct TranslatingDrafter {
    drafter: Box<dyn Drafter>,
    drafter_tokenizer: Arc<dyn Tokenizer>,
    target_tokenizer: Arc<dyn Tokenizer>,
}

#[async_trait]
impl Drafter for TranslatingDrafter {
    fn name(&self) -> &str {
        self.drafter.name()
    }

    fn device(&self) -> Device {
        self.drafter.device()
    }

    fn expected_cost(&self) -> DraftCost {
        self.drafter.expected_cost()
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let text = self.target_tokenizer.detokenize(output).await?;
        let Ok(text) = String::from_utf8(text) else { return Ok(Vec::new()) };
        let drafter_output = self.drafter_tokenizer.tokenize(&text).await?;
        let drafted = self.drafter.propose(&drafter_output, max, min_probability).await?;
        let tokens: Vec<TokenId> = drafted.iter().map(|proposal| proposal.token).collect();
        let bytes = self.drafter_tokenizer.detokenize(&tokens).await?;
        // An incomplete character at the end is dropped.
        let complete = std::str::from_utf8(&bytes).map_or_else(|error| error.valid_up_to(), str::len);
        let text = String::from_utf8_lossy(&bytes[..complete]).into_owned();
        let translated = tokenize_draft(self.target_tokenizer.as_ref(), output, &text, false).await?;
        let min_probability = drafted.iter().map(|proposal| proposal.probability).fold(1.0, f32::min);
        let proposal = |token| Proposal { token, probability: min_probability };
        Ok(translated.into_iter().take(max as usize).map(proposal).collect())
    }
}
