//! A target session on a node.
//!
//! Invariant: `output` holds the tokens that the caller received, and `hash` covers prompt and output. The
//! node reports a lost session, or a session at another position. The client then opens the session again
//! from the committed tokens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{
    BackendError, CommittedToken, Device, Draft, PassCost, PreparedRequest, Request, ResumePoint, StepResult,
    Target, TokenId, TokenLogprobs, Tokenizer, WireRequest,
};

use crate::client::checks::{checked_open_reply, checked_step};
use crate::client::link::{CallError, Link, Retries, backend_error};
use crate::client::model::Node;
use crate::client::steps::StepReader;
use crate::client::timeouts::{OPEN_TIMEOUT, call_timeout};
use crate::client::vocabulary::Vocabulary;
use crate::protocol::calls::{
    DecodeCall, OpenCall, OpenReply, Position, SessionRole, Step, VerifyCall, WireLogprobs,
};
use crate::protocol::hash::TokenHash;

pub(crate) struct NodeTarget {
    link: Arc<Link>,
    vocabulary: Arc<Vocabulary>,
    model: String,
    /// Digest of the weights that began the answer. The session never continues on other weights.
    weights: String,
    request: Arc<Request>,
    prompt: Arc<[TokenId]>,
    output: Vec<TokenId>,
    hash: TokenHash,
    /// Tokens that the caller committed after `output` without verification. The next call sends them to the
    /// node.
    unverified: Vec<TokenId>,
    max_tokens: u32,
    session: Option<String>,
    wait_timeout: Duration,
    expected: PassCost,
    decoding: Option<Decoding>,
}

/// A running decode.
struct Decoding {
    remaining: u32,
    /// `None` before the first call, and after the stream broke.
    steps: Option<StepReader>,
    retries: Retries,
    finished: bool,
}

impl NodeTarget {
    /// Opens a session. With `resume_point`, the session continues after the tokens of another session.
    pub(crate) async fn open(
        node: &Node,
        request: &Arc<Request>,
        resume_point: Option<&ResumePoint>,
    ) -> Result<(Self, PreparedRequest, u32), CallError> {
        let call = new_open_call(&node.model, request, resume_point);
        let attempt = || open(&node.link, &node.facts.weights, &call);
        let opened = node.link.with_retries(node.wait_timeout, attempt).await?;
        let prompt = resume_point.map_or_else(|| opened.tokens.clone().into(), |point| point.prompt.clone());
        let mut hash = TokenHash::new(&prompt);
        hash.extend(&call.output);
        let prepared = PreparedRequest {
            request: request.clone(),
            prompt: prompt.clone(),
            text: opened.text.into(),
            max_tokens: opened.max_tokens,
            constraint: None,
            tokenizer: node.vocabulary.clone(),
        };
        let session = Self {
            link: node.link.clone(),
            vocabulary: node.vocabulary.clone(),
            model: node.model.clone(),
            weights: node.facts.weights.clone(),
            request: request.clone(),
            prompt,
            output: call.output,
            hash,
            unverified: Vec::new(),
            max_tokens: opened.max_tokens,
            session: Some(opened.session),
            wait_timeout: node.wait_timeout,
            expected: expected_cost(node),
            decoding: None,
        };
        let cached = opened.cached.min(u32::try_from(prepared.prompt.len()).unwrap_or(u32::MAX));
        Ok((session, prepared, cached))
    }

    /// Returns the session's id; opens the session again if it was lost.
    async fn open_session(&mut self) -> Result<String, CallError> {
        if let Some(session) = &self.session {
            return Ok(session.clone());
        }
        self.mark_synced();
        let (prompt, output, max_tokens) = (self.prompt.clone(), self.output.clone(), self.max_tokens);
        let call =
            new_open_call(&self.model, &self.request, Some(&ResumePoint { prompt, output, max_tokens }));
        let opened = open(&self.link, &self.weights, &call).await?;
        self.link.counters.session_resyncs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(
            node = self.link.name,
            url = %self.link.machine.url,
            request = self.request.id,
            committed = self.output.len(),
            cached = opened.cached,
            "reopened the session"
        );
        self.session = Some(opened.session.clone());
        Ok(opened.session)
    }

    /// Moves the unverified tokens to `output`: the node has received them.
    fn mark_synced(&mut self) {
        self.hash.extend(&self.unverified);
        self.output.append(&mut self.unverified);
    }

    fn position(&self) -> Position {
        let at = u32::try_from(self.prompt.len() + self.output.len()).unwrap_or(u32::MAX);
        Position { at, hash: self.hash }
    }

    async fn try_verify(&mut self, draft: &Draft) -> Result<Step, CallError> {
        let path = format!("/v1/node/sessions/{}/verify", self.open_session().await?);
        let call = VerifyCall::new(self.position(), &self.unverified, draft);
        let start = self.link.clock.now();
        let rows = u32::try_from(call.draft.len() + call.unverified.len()).unwrap_or(u32::MAX);
        let timeout = call_timeout(
            self.expected.time_per_token + self.expected.time_per_row * rows + self.expected.round_trip,
        );
        let step: Step = self.link.call(&path, &call, timeout).await?;
        let step = checked_step(step, draft.depth() + 1, draft);
        let step = step.map_err(|error| self.link.invalid_reply(&error))?;
        self.link.record_round_trip(self.link.clock.since(start), Duration::from_micros(step.elapsed_us));
        if step.tokens.is_empty() && step.finish_reason.is_none() {
            return Err(CallError::Transient(format!("{} committed no token", self.link.name)));
        }
        self.mark_synced();
        Ok(step)
    }

    /// The next step of a decode; `None` when the node ended the stream.
    async fn try_step(&mut self, max: u32) -> Result<Option<Step>, CallError> {
        let open = self.decoding.as_ref().is_some_and(|decoding| decoding.steps.is_some());
        if !open {
            let path = format!("/v1/node/sessions/{}/decode", self.open_session().await?);
            let call = DecodeCall {
                position: self.position(),
                max_tokens: max,
                unverified: self.unverified.clone(),
            };
            let response = self.link.stream(&path, &call, call_timeout(self.expected.time_per_token)).await?;
            self.mark_synced();
            if let Some(decoding) = &mut self.decoding {
                decoding.steps = Some(StepReader::new(response));
            }
        }
        let link = self.link.clone();
        match self.decoding.as_mut().and_then(|decoding| decoding.steps.as_mut()) {
            Some(steps) => {
                let step = link.while_alive(steps.next(&link), call_timeout(self.expected.time_per_token));
                let checked = |step| checked_step(step, max as usize, &Draft::default());
                step.await?.map(checked).transpose().map_err(|error| link.invalid_reply(&error))
            }
            None => Ok(None),
        }
    }

    /// Prepares the next attempt after `error`: closes a stale session and waits. Returns an error if no
    /// attempt is left.
    async fn recover(&mut self, error: CallError, retries: &mut Retries) -> Result<(), CallError> {
        match error {
            CallError::Transient(reason) => retries.wait(&self.link, reason).await,
            CallError::StaleSession(reason) => {
                tracing::info!(
                    node = self.link.name,
                    request = self.request.id,
                    reason,
                    "the session is stale"
                );
                self.close_session();
                // A node that loses every session must not receive calls without a delay.
                retries.wait(&self.link, reason).await
            }
            CallError::Refused(error) => Err(CallError::Refused(error)),
        }
    }

    fn close_session(&mut self) {
        if let Some(session) = self.session.take() {
            self.link.close(&session);
        }
    }

    fn record_step(&mut self, step: Step) -> StepResult {
        let (elapsed, cost) = step.times();
        let mut verified = StepResult {
            elapsed,
            cost,
            accepted: step.accepted,
            ties: step.ties,
            rows: step.rows,
            finish_reason: step.finish_reason,
            ..StepResult::default()
        };
        let mut logprobs = step.logprobs.into_iter();
        for (token, piece) in step.tokens {
            self.vocabulary.learn(token, piece);
            self.output.push(token);
            self.hash.extend(&[token]);
            let logprobs = logprobs.next().map(|logprobs| self.learn_logprobs(logprobs));
            verified.committed.push(CommittedToken { token, logprobs });
        }
        verified
    }

    fn learn_logprobs(&self, logprobs: WireLogprobs) -> TokenLogprobs {
        let top = logprobs.top.into_iter().map(|(token, piece, logprob)| {
            self.vocabulary.learn(token, piece);
            (token, logprob)
        });
        TokenLogprobs { logprob: logprobs.logprob, top: top.collect() }
    }
}

/// The call that opens a session, for a whole request or after the tokens of another target.
fn new_open_call(model: &str, request: &Request, resume_point: Option<&ResumePoint>) -> OpenCall {
    OpenCall {
        model: model.to_owned(),
        role: SessionRole::Target,
        request: match resume_point {
            Some(_) => WireRequest::without_prompt(request),
            None => WireRequest::from(request),
        },
        tokens: resume_point.map(|point| point.prompt.to_vec()).unwrap_or_default(),
        output: resume_point.map(|point| point.output.clone()).unwrap_or_default(),
        max_tokens: resume_point.map(|point| point.max_tokens),
    }
}

/// Time of a call on both machines besides the network and the forward pass: HTTP, JSON and waking threads.
const CALL_OVERHEAD: Duration = Duration::from_millis(2);

fn expected_cost(node: &Node) -> PassCost {
    // A supervised node is a process of this machine. Its measured passes include the call, so the round trip
    // counts as zero.
    let round_trip =
        if node.link.is_supervised() { Duration::ZERO } else { node.link.round_trip() + CALL_OVERHEAD };
    PassCost {
        time_per_token: Duration::from_nanos(node.facts.time_per_token_ns),
        time_per_row: Duration::from_nanos(node.facts.time_per_row_ns),
        round_trip,
    }
}

/// Opens a session and checks the digest of its weights.
async fn open(link: &Link, weights: &str, call: &OpenCall) -> Result<OpenReply, CallError> {
    let opened: OpenReply = link.call("/v1/node/sessions", call, OPEN_TIMEOUT).await?;
    let max_tokens = call.max_tokens.or(call.request.max_tokens).unwrap_or(u32::MAX);
    let opened = checked_open_reply(opened, max_tokens).map_err(|error| link.invalid_reply(&error))?;
    if opened.weights == weights {
        return Ok(opened);
    }
    link.close(&opened.session);
    // The error is transient: the model can be put back while the request waits.
    Err(CallError::Transient(format!(
        "{} serves other weights as '{}' than when the script was loaded: restart the node with that model, or reload the script",
        link.name, call.model
    )))
}

#[async_trait]
impl Target for NodeTarget {
    async fn verify(&mut self, draft: &Draft) -> Result<StepResult, BackendError> {
        self.decoding = None;
        let mut retries = Retries::new(self.wait_timeout);
        loop {
            match self.try_verify(draft).await {
                Ok(step) => return Ok(self.record_step(step)),
                // A repeated call is safe: if the first one arrived, the node sends the same step again.
                Err(error) => self
                    .recover(error, &mut retries)
                    .await
                    .map_err(|error| backend_error(&self.link, error))?,
            }
        }
    }

    /// The next call sends the tokens to the node. Only the node knows a constraint on the output, so a
    /// constrained request accepts no unverified token.
    async fn append_unverified(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        let committed = self.output.len() + self.unverified.len();
        let room = (self.max_tokens as usize).saturating_sub(committed);
        if self.request.is_constrained() {
            return Ok(0);
        }
        // If the node does not reply, the next verification reaches it with retries.
        if self.vocabulary.detokenize(tokens).await.is_err() {
            return Ok(0);
        }
        // An end-of-turn token has no text, and neither has an id outside the vocabulary. Accepting stops
        // before such a token.
        let has_text =
            |token: &&TokenId| self.vocabulary.piece(**token).is_some_and(|piece| !piece.is_empty());
        let accepted = &tokens[..tokens.iter().take(room).take_while(has_text).count()];
        self.unverified.extend(accepted);
        Ok(accepted.len())
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        let retries = Retries::new(self.wait_timeout);
        self.decoding = Some(Decoding { remaining: max, steps: None, retries, finished: false });
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<StepResult>, BackendError> {
        loop {
            let Some(decoding) = &self.decoding else { return Ok(None) };
            if decoding.remaining == 0 || decoding.finished {
                self.decoding = None;
                return Ok(None);
            }
            let error = match self.try_step(decoding.remaining).await {
                Ok(Some(step)) => {
                    let verified = self.record_step(step);
                    if let Some(decoding) = &mut self.decoding {
                        let committed = u32::try_from(verified.committed.len()).unwrap_or(u32::MAX);
                        decoding.remaining = decoding.remaining.saturating_sub(committed);
                        decoding.finished = verified.finish_reason.is_some();
                        decoding.retries = Retries::new(self.wait_timeout);
                    }
                    return Ok(Some(verified));
                }
                Ok(None) => CallError::StaleSession(format!(
                    "{} ended its stream before the last token; a proxy may close idle connections",
                    self.link.name
                )),
                // The node may have committed tokens that did not arrive, so the session must be opened
                // again.
                Err(CallError::Transient(reason)) => {
                    self.close_session();
                    CallError::Transient(reason)
                }
                Err(error) => error,
            };
            let Some(mut decoding) = self.decoding.take() else { return Ok(None) };
            decoding.steps = None;
            let recovered = self.recover(error, &mut decoding.retries).await;
            self.decoding = Some(decoding);
            recovered.map_err(|error| backend_error(&self.link, error))?;
        }
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.vocabulary.piece(token).map(|piece| piece.to_vec()).unwrap_or_default()
    }

    fn expected_cost(&self) -> PassCost {
        self.expected
    }

    fn device(&self) -> Device {
        self.link.device.clone()
    }
}

impl Drop for NodeTarget {
    fn drop(&mut self) {
        self.close_session();
    }
}
