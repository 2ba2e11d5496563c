//! A text server as a target that verifies in one pass: servers that say the log-probabilities of a prompt's
//! tokens (vLLM's `prompt_logprobs`) say with them which token they would have chosen at each place. Greedy
//! requests only; what else is asked for is replayed.
//!
//! Invariant: `tokens` are prompt and output, as ids of the vocabulary that the script named.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tightwad_core::{
    BackendError, Committed, Draft, Finish, Format, Left, OpenTarget, Pass, Processor, PromptReader, Request,
    Target, TokenId, Verified,
};

use crate::client::Client;

/// Tokens that are decoded with one call.
const STRETCH: u32 = 32;

/// True when the most probable token is what the request wants: then one pass can verify.
pub(crate) fn is_greedy(request: &Request) -> bool {
    let sampling = &request.sampling;
    let plain = !sampling.has_penalties() && sampling.logit_bias.is_empty() && sampling.logprobs.is_none();
    sampling.is_greedy() && plain && matches!(request.format, Format::Text) && request.tools.is_empty()
}

pub(crate) struct LogprobsTarget {
    client: Arc<Client>,
    reader: Arc<dyn PromptReader>,
    tokens: Vec<TokenId>,
    /// Tokens that may still be committed.
    left: u32,
    /// Tokens still to decode.
    decoding: u32,
    /// Decoded and not handed out.
    ready: VecDeque<TokenId>,
    /// The server ended its turn after what is ready.
    ended: bool,
}

impl LogprobsTarget {
    pub(crate) async fn open(
        client: &Arc<Client>,
        reader: &Arc<dyn PromptReader>,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        let mut task = reader.read(request).await?;
        let mut output = Vec::new();
        if let Some(left) = left {
            task.prompt = left.prompt.clone();
            task.max_tokens = left.max_tokens;
            output.clone_from(&left.output);
        }
        let session = Self {
            client: client.clone(),
            reader: reader.clone(),
            left: task.max_tokens.saturating_sub(u32::try_from(output.len()).unwrap_or(u32::MAX)),
            tokens: [&task.prompt[..], &output].concat(),
            decoding: 0,
            ready: VecDeque::new(),
            ended: false,
        };
        Ok(OpenTarget { session: Box::new(session), cached: 0, task })
    }

    /// The server's greedy continuation of prompt, output and `draft`, by up to `tokens`.
    async fn ask(&self, draft: &[TokenId], tokens: u32) -> Result<Value, BackendError> {
        let prompt: Vec<TokenId> = self.tokens.iter().chain(draft).copied().collect();
        let mut body = json!({
            "model": self.client.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0,
            "logprobs": 1, "return_tokens_as_token_ids": true,
        });
        if !draft.is_empty() {
            body["prompt_logprobs"] = json!(1);
        }
        let answer: Value = self.client.ask("/v1/completions", &body).await?;
        Ok(answer["choices"][0].clone())
    }

    fn failed(&self, what: &str) -> BackendError {
        let message = format!("{what}; verify = \"logprobs\" needs a server such as vLLM, or use \"replay\"");
        BackendError::failed(&self.client.model, message)
    }

    /// The ids of what was generated.
    fn generated(&self, choice: &Value) -> Result<Vec<TokenId>, BackendError> {
        let all = choice["logprobs"]["tokens"].as_array().into_iter().flatten();
        let id = |token: &Value| token.as_str()?.strip_prefix("token_id:")?.parse().ok();
        let ids: Option<Vec<TokenId>> = all.map(id).collect();
        ids.ok_or_else(|| self.failed("it does not say the ids of its tokens"))
    }

    /// The most probable token at place `at` of the prompt.
    fn best(&self, choice: &Value, at: usize) -> Result<TokenId, BackendError> {
        let entry = choice["prompt_logprobs"][at].as_object();
        let best = entry.and_then(|entry| entry.iter().find(|(_, one)| one["rank"] == 1));
        let id = best.and_then(|(id, _)| id.parse().ok());
        id.ok_or_else(|| self.failed("it does not say the log-probabilities of a prompt"))
    }

    /// Commits a token, unless it ends the turn; true when the sequence goes on.
    fn commit(&mut self, token: TokenId, verified: &mut Verified) -> bool {
        if self.reader.ends_turn(token) {
            verified.finish = Some(Finish::Stop);
            return false;
        }
        self.tokens.push(token);
        self.left = self.left.saturating_sub(1);
        verified.committed.push(Committed { token, logprobs: None });
        if self.left == 0 {
            verified.finish = Some(Finish::Length);
        }
        verified.finish.is_none()
    }
}

#[async_trait]
impl Target for LogprobsTarget {
    async fn verify(&mut self, draft: &Draft) -> Result<Verified, BackendError> {
        let draft = draft.first().to_vec();
        let choice = self.ask(&draft, 1).await?;
        let (start, mut verified) = (self.tokens.len(), Verified::default());
        for (offset, token) in draft.iter().enumerate() {
            let best = self.best(&choice, start + offset)?;
            if !self.commit(best, &mut verified) || best != *token {
                return Ok(verified);
            }
            verified.accepted += 1;
        }
        match self.generated(&choice)?.first() {
            Some(token) => drop(self.commit(*token, &mut verified)),
            None => verified.finish = Some(Finish::Stop),
        }
        Ok(verified)
    }

    async fn accept(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        let goes_on = |token: &&TokenId| !self.reader.ends_turn(**token);
        let most = tokens.iter().take(self.left as usize).take_while(goes_on).count();
        self.tokens.extend(&tokens[..most]);
        self.left -= u32::try_from(most).unwrap_or(self.left);
        Ok(most)
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        self.decoding = max;
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<Verified>, BackendError> {
        if self.decoding == 0 {
            return Ok(None);
        }
        if self.ready.is_empty() && !self.ended {
            let choice = self.ask(&[], self.decoding.min(STRETCH)).await?;
            self.ready.extend(self.generated(&choice)?);
            self.ended = choice["finish_reason"] == "stop" || self.ready.is_empty();
        }
        let mut verified = Verified::default();
        match self.ready.pop_front() {
            Some(token) => drop(self.commit(token, &mut verified)),
            None => verified.finish = Some(Finish::Stop),
        }
        self.decoding = if verified.finish.is_some() { 0 } else { self.decoding - 1 };
        Ok(Some(verified))
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.reader.bytes(token)
    }

    fn expected(&self) -> Pass {
        Pass::default()
    }

    fn processor(&self) -> Processor {
        self.client.processor()
    }
}
