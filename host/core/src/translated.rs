//! A drafter with another vocabulary: its text is what travels, and the target's vocabulary cuts it into
//! tokens. Exact like every drafter, because the target verifies; slower than one of the same family,
//! and right less often.

use std::sync::Arc;

use async_trait::async_trait;

use crate::align::aligned;
use crate::backend::{Backend, DrafterSource, SharedBackend};
use crate::error::BackendError;
use crate::session::{Drafter, Expected, Processor, Task, Tokenizer};
use crate::tokens::{Proposal, TokenId};

/// Drafts with `inner`, by text.
pub struct Translated {
    inner: SharedBackend,
    tokenizer: Arc<dyn Tokenizer>,
}

impl Translated {
    /// Translates what `inner` proposes; `None` where it has no vocabulary at work.
    #[must_use]
    pub fn new(inner: SharedBackend) -> Option<Self> {
        let tokenizer = inner.as_target()?.tokenizer()?;
        Some(Self { inner, tokenizer })
    }
}

impl Backend for Translated {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        Some(self)
    }
}

#[async_trait]
impl DrafterSource for Translated {
    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        // The drafter reads the request its own way, with its own chat template. Its answer needs at
        // most a few times as many tokens.
        let mut own = self.inner.target()?.read(&task.request).await?;
        own.max_tokens = task.max_tokens.saturating_mul(3);
        let drafter = self.inner.drafter()?.open_drafter(&own).await?;
        let (own, targets) = (self.tokenizer.clone(), task.tokenizer.clone());
        Ok(Box::new(TranslatedDrafter { drafter, own, targets }))
    }
}

struct TranslatedDrafter {
    drafter: Box<dyn Drafter>,
    own: Arc<dyn Tokenizer>,
    targets: Arc<dyn Tokenizer>,
}

#[async_trait]
impl Drafter for TranslatedDrafter {
    fn name(&self) -> &str {
        self.drafter.name()
    }

    fn processor(&self) -> Processor {
        self.drafter.processor()
    }

    fn expected(&self) -> Expected {
        self.drafter.expected()
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let written = self.targets.detokenize(output).await?;
        let Ok(written) = String::from_utf8(written) else { return Ok(Vec::new()) };
        let known = self.own.tokenize(&written).await?;
        let drafted = self.drafter.propose(&known, max, min_probability).await?;
        let tokens: Vec<TokenId> = drafted.iter().map(|proposal| proposal.token).collect();
        let bytes = self.own.detokenize(&tokens).await?;
        // A character that was cut is left out.
        let whole = std::str::from_utf8(&bytes).map_or_else(|error| error.valid_up_to(), str::len);
        let text = String::from_utf8_lossy(&bytes[..whole]).into_owned();
        let translated = aligned(self.targets.as_ref(), output, &text, false).await?;
        let sure = drafted.iter().map(|proposal| proposal.probability).fold(1.0, f32::min);
        let proposal = |token| Proposal { token, probability: sure };
        Ok(translated.into_iter().take(max as usize).map(proposal).collect())
    }
}
