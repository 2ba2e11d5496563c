//! The vocabulary of a model that runs elsewhere.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{BackendError, PromptReader, Request, Task, TokenId, Tokenizer};

use crate::backend::prompt::Reader;
use crate::error::LoadError;
use crate::weights::Weights;

/// Tokens that a text may have: the context of the model is not known.
const UNKNOWN_CONTEXT: u32 = 1 << 20;

/// Vocabulary and chat template of a GGUF file, loaded without its weights.
pub struct Vocabulary(Arc<Reader>);

impl Vocabulary {
    /// Loads them from the file at `path`.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when the file is no model.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Ok(Self(Arc::new(Reader::new(Weights::vocabulary_of(path)?, UNKNOWN_CONTEXT))))
    }
}

#[async_trait]
impl PromptReader for Vocabulary {
    fn vocabulary(&self) -> [u8; 32] {
        self.0.weights.vocabulary()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.0.tokenizer()
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        let read = self.0.prepare("the tokenizer", request).await?;
        Ok(Task {
            request: request.clone(),
            prompt: read.prompt.into(),
            text: read.text.into(),
            max_tokens: request.max_tokens.unwrap_or(u32::MAX / 2),
            constraint: None,
            tokenizer: self.0.tokenizer(),
        })
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.0.weights.bytes(token)
    }

    fn ends_turn(&self, token: TokenId) -> bool {
        self.0.weights.ends(token)
    }
}
