//! A text server as a target that verifies in one forward pass.
//!
//! Some servers report log-probabilities of a prompt's tokens (vLLM's `prompt_logprobs`). Such a server also
//! reports its own choice at each position. The choices are valid for greedy requests only; other requests
//! use replay.
//!
//! Invariant: `tokens` holds prompt and output, as ids of the vocabulary that the script names.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tightwad_core::{
    BackendError, CommittedToken, Device, Draft, FinishReason, Format, OpenedTarget, PassCost, PromptReader,
    Request, ResumePoint, StepResult, Target, TokenId,
};

use crate::client::Client;

/// The maximum number of tokens that one call decodes.
const MAX_TOKENS_PER_CALL: u32 = 32;

/// True when the request takes the most probable token at each position, so that one pass can verify.
pub(crate) fn is_greedy(request: &Request) -> bool {
    let sampling = &request.sampling;
    let plain = !sampling.has_penalties() && sampling.logit_bias.is_empty() && sampling.logprobs.is_none();
    sampling.is_greedy() && plain && matches!(request.format, Format::Text) && request.tools.is_empty()
}

pub(crate) struct LogprobsTarget {
    client: Arc<Client>,
    reader: Arc<dyn PromptReader>,
    tokens: Vec<TokenId>,
    /// Tokens that the request may still commit.
    remaining_tokens: u32,
    /// Tokens that the current decode must still return.
    remaining_decode_tokens: u32,
    /// Decoded tokens that `step` has not returned yet.
    ready: VecDeque<TokenId>,
    /// The server ended its turn after the tokens in `ready`.
    ended: bool,
}

impl LogprobsTarget {
    pub(crate) async fn open(
        client: &Arc<Client>,
        reader: &Arc<dyn PromptReader>,
        request: &Arc<Request>,
        resume_point: Option<&ResumePoint>,
    ) -> Result<OpenedTarget, BackendError> {
        let mut prepared = reader.prepare(request).await?;
        let mut output = Vec::new();
        if let Some(point) = resume_point {
            prepared.prompt = point.prompt.clone();
            prepared.max_tokens = point.max_tokens;
            output.clone_from(&point.output);
        }
        let session = Self {
            client: client.clone(),
            reader: reader.clone(),
            remaining_tokens: prepared
                .max_tokens
                .saturating_sub(u32::try_from(output.len()).unwrap_or(u32::MAX)),
            tokens: [&prepared.prompt[..], &output].concat(),
            remaining_decode_tokens: 0,
            ready: VecDeque::new(),
            ended: false,
        };
        Ok(OpenedTarget { session: Box::new(session), cached_tokens: 0, prepared })
    }

    /// Requests the server's greedy continuation of prompt, output and `draft`, by up to `tokens` tokens.
    async fn request_continuation(&self, draft: &[TokenId], tokens: u32) -> Result<Value, BackendError> {
        let prompt: Vec<TokenId> = self.tokens.iter().chain(draft).copied().collect();
        let mut body = json!({
            "model": self.client.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0,
            "logprobs": 1, "return_tokens_as_token_ids": true,
        });
        if !draft.is_empty() {
            body["prompt_logprobs"] = json!(1);
        }
        let answer: Value = self.client.post_json("/v1/completions", &body).await?;
        Ok(answer["choices"][0].clone())
    }

    fn unsupported(&self, reason: &str) -> BackendError {
        let message =
            format!("{reason}; verify = \"logprobs\" needs a server such as vLLM, or use \"replay\"");
        BackendError::failed(&self.client.name, message)
    }

    /// The ids of the generated tokens, at most `max`.
    fn generated_ids(&self, choice: &Value, max: u32) -> Result<Vec<TokenId>, BackendError> {
        let tokens = choice["logprobs"]["tokens"].as_array().into_iter().flatten().take(max as usize);
        let id = |token: &Value| token.as_str()?.strip_prefix("token_id:")?.parse().ok();
        let ids: Option<Vec<TokenId>> = tokens.map(id).collect();
        ids.ok_or_else(|| self.unsupported("it does not report the ids of its tokens"))
    }

    /// The most probable token at `position` of the prompt.
    fn most_probable(&self, choice: &Value, position: usize) -> Result<TokenId, BackendError> {
        let entry = choice["prompt_logprobs"][position].as_object();
        let best = entry.and_then(|entry| entry.iter().find(|(_, token)| token["rank"] == 1));
        let id = best.and_then(|(id, _)| id.parse().ok());
        id.ok_or_else(|| self.unsupported("it does not report the log-probabilities of a prompt"))
    }

    /// Commits a token, unless it ends the turn. Returns true if the sequence continues.
    fn commit(&mut self, token: TokenId, verified: &mut StepResult) -> bool {
        if self.reader.ends_turn(token) {
            verified.finish_reason = Some(FinishReason::Stop);
            return false;
        }
        self.tokens.push(token);
        self.remaining_tokens = self.remaining_tokens.saturating_sub(1);
        verified.committed.push(CommittedToken { token, logprobs: None });
        if self.remaining_tokens == 0 {
            verified.finish_reason = Some(FinishReason::Length);
        }
        verified.finish_reason.is_none()
    }
}

#[async_trait]
impl Target for LogprobsTarget {
    async fn verify(&mut self, draft: &Draft) -> Result<StepResult, BackendError> {
        let draft = draft.first_path().to_vec();
        let choice = self.request_continuation(&draft, 1).await?;
        let (start, mut verified) = (self.tokens.len(), StepResult::default());
        for (offset, token) in draft.iter().enumerate() {
            let best = self.most_probable(&choice, start + offset)?;
            if !self.commit(best, &mut verified) || best != *token {
                return Ok(verified);
            }
            verified.accepted += 1;
        }
        match self.generated_ids(&choice, 1)?.first() {
            Some(token) => drop(self.commit(*token, &mut verified)),
            None => verified.finish_reason = Some(FinishReason::Stop),
        }
        Ok(verified)
    }

    async fn append_unverified(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        let continues = |token: &&TokenId| !self.reader.ends_turn(**token);
        let accepted = tokens.iter().take(self.remaining_tokens as usize).take_while(continues).count();
        self.tokens.extend(&tokens[..accepted]);
        self.remaining_tokens -= u32::try_from(accepted).unwrap_or(self.remaining_tokens);
        Ok(accepted)
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        self.remaining_decode_tokens = max;
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<StepResult>, BackendError> {
        if self.remaining_decode_tokens == 0 {
            return Ok(None);
        }
        if self.ready.is_empty() && !self.ended {
            let max = self.remaining_decode_tokens.min(MAX_TOKENS_PER_CALL);
            let choice = self.request_continuation(&[], max).await?;
            self.ready.extend(self.generated_ids(&choice, max)?);
            self.ended = choice["finish_reason"] == "stop" || self.ready.is_empty();
        }
        let mut verified = StepResult::default();
        match self.ready.pop_front() {
            Some(token) => drop(self.commit(token, &mut verified)),
            None => verified.finish_reason = Some(FinishReason::Stop),
        }
        self.remaining_decode_tokens =
            if verified.finish_reason.is_some() { 0 } else { self.remaining_decode_tokens - 1 };
        Ok(Some(verified))
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.reader.bytes(token)
    }

    fn expected_cost(&self) -> PassCost {
        PassCost::default()
    }

    fn device(&self) -> Device {
        self.client.device()
    }
}
