//! A drafter that writes text.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{BackendError, Drafter, Expected, Processor, Proposal, Task, TokenId, aligned};

use crate::client::Client;

/// How long a draft may take, and how many times what is usual.
const PATIENCE: (Duration, f64) = (Duration::from_secs(3), 20.0);
/// What a token is given where the server does not say how sure it is.
const UNKNOWN: f32 = 0.75;

pub(crate) struct TextDrafter {
    name: String,
    client: Arc<Client>,
    task: Task,
}

impl TextDrafter {
    pub(crate) fn new(name: &str, client: &Arc<Client>, task: &Task) -> Self {
        Self { name: name.to_owned(), client: client.clone(), task: task.clone() }
    }

    async fn draft(&self, output: &[TokenId], max: u32) -> Result<Vec<Proposal>, BackendError> {
        let tokenizer = self.task.tokenizer.as_ref();
        // In the middle of a character there is no text to go on from.
        let Ok(written) = String::from_utf8(tokenizer.detokenize(output).await?) else {
            return Ok(Vec::new());
        };
        let text = format!("{}{written}", self.task.text);
        // One more than is wanted, because the last one is left out.
        let (drafted, probabilities) = self.client.complete(&text, max + 1).await?;
        let tokens = aligned(tokenizer, output, &drafted, false).await?;
        let same = tokens.len() + 1 == probabilities.len();
        let proposal = |(index, token)| Proposal {
            token,
            probability: probabilities.get(index).copied().filter(|_| same).unwrap_or(UNKNOWN),
        };
        Ok(tokens.into_iter().take(max as usize).enumerate().map(proposal).collect())
    }
}

#[async_trait]
impl Drafter for TextDrafter {
    fn name(&self) -> &str {
        &self.name
    }

    fn processor(&self) -> Processor {
        self.client.processor()
    }

    fn expected(&self) -> Expected {
        let (token, call) = self.client.pace();
        Expected { startup: call, token, round_trip: call }
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let limit = PATIENCE.0.max((self.expected().token * max).mul_f64(PATIENCE.1));
        let done = tokio::time::timeout(limit, self.draft(output, max)).await;
        let mut proposals = done.unwrap_or_else(|_| {
            Err(BackendError::failed(&self.name, format!("no draft within {} ms", limit.as_millis())))
        })?;
        let sure = proposals.iter().take_while(|one| one.probability >= min_probability).count();
        proposals.truncate(sure);
        Ok(proposals)
    }
}
