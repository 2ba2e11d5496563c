//! The vocabulary of a model that another process runs.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{BackendError, PreparedRequest, PromptReader, Request, TokenId, Tokenizer};

use crate::backend::prompt::RequestReader;
use crate::error::LoadError;
use crate::weights::Weights;

/// The maximum number of tokens of a text. The context of the model is unknown.
const UNKNOWN_CONTEXT: u32 = 1 << 20;

/// Vocabulary and chat template of a GGUF file, loaded without the weights.
pub struct Vocabulary(Arc<RequestReader>);

impl Vocabulary {
    /// Loads vocabulary and chat template from the file at `path`.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the file is not a model.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Ok(Self(Arc::new(RequestReader::new(Weights::load_vocabulary(path)?, UNKNOWN_CONTEXT, None))))
    }
}

#[async_trait]
impl PromptReader for Vocabulary {
    fn vocabulary(&self) -> [u8; 32] {
        self.0.weights.vocabulary_digest()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.0.tokenizer()
    }

    async fn prepare(&self, request: &Arc<Request>) -> Result<PreparedRequest, BackendError> {
        let prepared = self.0.prepare("the tokenizer", request).await?;
        Ok(PreparedRequest {
            request: request.clone(),
            prompt: prepared.prompt.into(),
            text: prepared.text,
            max_tokens: request.max_tokens.unwrap_or(u32::MAX / 2),
            constraint: None,
            tokenizer: self.0.tokenizer(),
        })
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.0.weights.token_bytes(token)
    }

    fn ends_turn(&self, token: TokenId) -> bool {
        self.0.weights.ends_turn(token)
    }
}
