//! A drafter that generates text. The target's vocabulary splits the text into tokens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{
    BackendError, Device, DraftCost, Drafter, PreparedRequest, Proposal, TokenId, tokenize_draft,
};

use crate::client::Client;

/// The shortest timeout of a draft.
const MIN_DRAFT_TIMEOUT: Duration = Duration::from_secs(3);
/// The timeout as a multiple of the expected time.
const TIMEOUT_FACTOR: f64 = 20.0;
/// The probability of a token if the server reports none.
const DEFAULT_PROBABILITY: f32 = 0.75;

pub(crate) struct TextDrafter {
    name: String,
    client: Arc<Client>,
    prepared: PreparedRequest,
}

impl TextDrafter {
    pub(crate) fn new(name: &str, client: &Arc<Client>, prepared: &PreparedRequest) -> Self {
        Self { name: name.to_owned(), client: client.clone(), prepared: prepared.clone() }
    }

    async fn draft(&self, output: &[TokenId], max: u32) -> Result<Vec<Proposal>, BackendError> {
        let tokenizer = self.prepared.tokenizer.as_ref();
        // Output that ends within a character is not a text that the server can continue.
        let Ok(output_text) = String::from_utf8(tokenizer.detokenize(output).await?) else {
            return Ok(Vec::new());
        };
        let text = format!("{}{output_text}", self.prepared.text);
        // One more token, because `tokenize_draft` drops the last one.
        let (continuation, probabilities) = self.client.continue_text(&text, max + 1).await?;
        let tokens = tokenize_draft(tokenizer, output, &continuation, false).await?;
        let aligned_one_to_one = tokens.len() + 1 == probabilities.len();
        let proposal = |(index, token)| Proposal {
            token,
            probability: probabilities
                .get(index)
                .copied()
                .filter(|_| aligned_one_to_one)
                .unwrap_or(DEFAULT_PROBABILITY),
        };
        Ok(tokens.into_iter().take(max as usize).enumerate().map(proposal).collect())
    }
}

#[async_trait]
impl Drafter for TextDrafter {
    fn name(&self) -> &str {
        &self.name
    }

    fn device(&self) -> Device {
        self.client.device()
    }

    fn expected_cost(&self) -> DraftCost {
        let (token, call) = self.client.expected_times();
        DraftCost { startup: call, time_per_token: token, round_trip: call }
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let timeout =
            MIN_DRAFT_TIMEOUT.max((self.expected_cost().time_per_token * max).mul_f64(TIMEOUT_FACTOR));
        let outcome = tokio::time::timeout(timeout, self.draft(output, max)).await;
        let mut proposals = outcome.unwrap_or_else(|_| {
            Err(BackendError::failed(&self.name, format!("no draft within {} ms", timeout.as_millis())))
        })?;
        let likely = proposals.iter().take_while(|proposal| proposal.probability >= min_probability).count();
        proposals.truncate(likely);
        Ok(proposals)
    }
}
