//! A session that verifies, on a node.
//!
//! Invariant: `output` is what the caller got, and `hash` is the hash of prompt and output. The node
//! may have lost the session or stand elsewhere: it says so, and the session is opened again with
//! all that was committed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{
    BackendError, Committed, Draft, Left, Pass, Processor, Request, Target, Task, TokenId, TokenLogprobs,
    Tokenizer, Verified, WireRequest,
};

use crate::client::limits::{OPENING, limit};
use crate::client::link::{Fault, Link, Pause, error};
use crate::client::model::Node;
use crate::client::steps::Steps;
use crate::client::vocabulary::Vocabulary;
use crate::protocol::calls::{Base, DecodeCall, OpenCall, Opened, Role, Step, VerifyCall, WireLogprobs};
use crate::protocol::hash::TokenHash;

pub(crate) struct NodeTarget {
    link: Arc<Link>,
    vocabulary: Arc<Vocabulary>,
    model: String,
    /// Digest of the weights that began the answer.
    weights: String,
    request: Arc<Request>,
    prompt: Arc<[TokenId]>,
    output: Vec<TokenId>,
    hash: TokenHash,
    /// Committed behind `output` without the node, which hears of them with the next call.
    unverified: Vec<TokenId>,
    max_tokens: u32,
    session: Option<String>,
    patience: Duration,
    expected: Pass,
    decoding: Option<Decoding>,
}

/// A decode under way.
struct Decoding {
    left: u32,
    /// Absent until the node was asked, or after the stream broke.
    steps: Option<Steps>,
    pause: Pause,
    finished: bool,
}

impl NodeTarget {
    /// Opens a session; with `left`, from where another was left.
    pub(crate) async fn open(
        node: &Node,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<(Self, Task, u32), Fault> {
        let call = open_call(&node.model, request, left);
        let ask = || open(&node.link, &node.facts.weights, &call);
        let opened = node.link.patiently(node.patience, ask).await?;
        let prompt = left.map_or_else(|| opened.tokens.clone().into(), |left| left.prompt.clone());
        let mut hash = TokenHash::of(&prompt);
        hash.extend(&call.output);
        let task = Task {
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
            patience: node.patience,
            expected: expected(node),
            decoding: None,
        };
        Ok((session, task, opened.cached))
    }

    /// The session's id; opens it again where it was lost.
    async fn session(&mut self) -> Result<String, Fault> {
        if let Some(session) = &self.session {
            return Ok(session.clone());
        }
        self.told();
        let (prompt, output, max_tokens) = (self.prompt.clone(), self.output.clone(), self.max_tokens);
        let call = open_call(&self.model, &self.request, Some(&Left { prompt, output, max_tokens }));
        let opened = open(&self.link, &self.weights, &call).await?;
        self.link.counts.resyncs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(
            node = self.link.name,
            request = self.request.id,
            committed = self.output.len(),
            cached = opened.cached,
            "the session was opened again"
        );
        self.session = Some(opened.session.clone());
        Ok(opened.session)
    }

    /// The node knows all that was committed.
    fn told(&mut self) {
        self.hash.extend(&self.unverified);
        self.output.append(&mut self.unverified);
    }

    fn base(&self) -> Base {
        let at = u32::try_from(self.prompt.len() + self.output.len()).unwrap_or(u32::MAX);
        Base { at, hash: self.hash }
    }

    async fn try_verify(&mut self, draft: &Draft) -> Result<Step, Fault> {
        let path = format!("/v1/node/sessions/{}/verify", self.session().await?);
        let call = VerifyCall::new(self.base(), &self.unverified, draft);
        let start = self.link.clock.now();
        let rows = u32::try_from(call.draft.len() + call.unverified.len()).unwrap_or(u32::MAX);
        let limit = limit(self.expected.token + self.expected.row * rows + self.expected.round_trip);
        let step: Step = self.link.call(&path, &call, limit).await?;
        self.link.measured(self.link.clock.since(start), Duration::from_micros(step.us));
        if step.tokens.is_empty() && step.finish.is_none() {
            return Err(Fault::Lost(format!("{} committed nothing", self.link.name)));
        }
        self.told();
        Ok(step)
    }

    /// The next step of a decode; `None` when the node says that it is over.
    async fn try_step(&mut self, max: u32) -> Result<Option<Step>, Fault> {
        let open = self.decoding.as_ref().is_some_and(|decoding| decoding.steps.is_some());
        if !open {
            let path = format!("/v1/node/sessions/{}/decode", self.session().await?);
            let call = DecodeCall { base: self.base(), max, unverified: self.unverified.clone() };
            let response = self.link.stream(&path, &call, limit(self.expected.token)).await?;
            self.told();
            if let Some(decoding) = &mut self.decoding {
                decoding.steps = Some(Steps::new(response));
            }
        }
        let link = self.link.clone();
        match self.decoding.as_mut().and_then(|decoding| decoding.steps.as_mut()) {
            Some(steps) => link.watched(steps.next(&link), limit(self.expected.token)).await,
            None => Ok(None),
        }
    }

    /// Forgets a session that is lost, and says whether to try again.
    async fn recover(&mut self, fault: Fault, pause: &mut Pause) -> Result<(), Fault> {
        match fault {
            Fault::Lost(reason) => pause.wait(&self.link, reason).await,
            Fault::OutOfStep(reason) => {
                tracing::info!(node = self.link.name, request = self.request.id, reason, "out of step");
                self.forget();
                // A node that loses every session at once must not be asked without a pause.
                pause.wait(&self.link, reason).await
            }
            Fault::Refused(error) => Err(Fault::Refused(error)),
        }
    }

    fn forget(&mut self) {
        if let Some(session) = self.session.take() {
            self.link.close(&session);
        }
    }

    fn take(&mut self, step: Step) -> Verified {
        let (took, cost) = step.times();
        let mut verified = Verified {
            took,
            cost,
            accepted: step.accepted,
            ties: step.ties,
            rows: step.rows,
            finish: step.finish,
            ..Verified::default()
        };
        let mut logprobs = step.logprobs.into_iter();
        for (token, piece) in step.tokens {
            self.vocabulary.learn(token, piece);
            self.output.push(token);
            self.hash.extend(&[token]);
            let logprobs = logprobs.next().map(|logprobs| self.learn(logprobs));
            verified.committed.push(Committed { token, logprobs });
        }
        verified
    }

    fn learn(&self, logprobs: WireLogprobs) -> TokenLogprobs {
        let top = logprobs.top.into_iter().map(|(token, piece, logprob)| {
            self.vocabulary.learn(token, piece);
            (token, logprob)
        });
        TokenLogprobs { logprob: logprobs.logprob, top: top.collect() }
    }
}

/// Opens a session for a whole request, or from where another target was left.
fn open_call(model: &str, request: &Request, left: Option<&Left>) -> OpenCall {
    OpenCall {
        model: model.to_owned(),
        role: Role::Target,
        request: match left {
            Some(_) => WireRequest::without_prompt(request),
            None => WireRequest::from(request),
        },
        tokens: left.map(|left| left.prompt.to_vec()).unwrap_or_default(),
        output: left.map(|left| left.output.clone()).unwrap_or_default(),
        max_tokens: left.map(|left| left.max_tokens),
    }
}

/// What a call takes on both machines besides the way and the pass: HTTP, JSON, waking threads up.
const OVERHEAD: Duration = Duration::from_millis(2);

fn expected(node: &Node) -> Pass {
    // Calls to a process of this machine are part of a pass, as they were when it was measured.
    let round_trip = if node.link.is_watched() { Duration::ZERO } else { node.link.round_trip() + OVERHEAD };
    Pass {
        token: Duration::from_nanos(node.facts.token_ns),
        row: Duration::from_nanos(node.facts.row_ns),
        round_trip,
    }
}

/// Opens a session on weights that must be these.
async fn open(link: &Link, weights: &str, call: &OpenCall) -> Result<Opened, Fault> {
    let opened: Opened = link.call("/v1/node/sessions", call, OPENING).await?;
    if opened.weights == weights {
        return Ok(opened);
    }
    link.close(&opened.session);
    // It may be mended as it came about, while the request waits.
    Err(Fault::Lost(format!(
        "{} serves another model as '{}' than when the script was loaded: start it with that model again, or load the script again",
        link.name, call.model
    )))
}

#[async_trait]
impl Target for NodeTarget {
    async fn verify(&mut self, draft: &Draft) -> Result<Verified, BackendError> {
        self.decoding = None;
        let mut pause = Pause::new(self.patience);
        loop {
            match self.try_verify(draft).await {
                Ok(step) => return Ok(self.take(step)),
                // The same call is answered with the same step, should the first one have arrived.
                Err(fault) => {
                    self.recover(fault, &mut pause).await.map_err(|fault| error(&self.link, fault))?
                }
            }
        }
    }

    /// The node hears of them with the next call. A constraint on the output is known to it alone.
    async fn accept(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        let committed = self.output.len() + self.unverified.len();
        let room = (self.max_tokens as usize).saturating_sub(committed);
        if self.request.is_constrained() {
            return Ok(0);
        }
        // Where the node does not answer now, it is asked by a verification, with patience.
        if self.vocabulary.detokenize(tokens).await.is_err() {
            return Ok(0);
        }
        // A token that ends a turn has no text, and neither has one that the model does not know.
        let has_text =
            |token: &&TokenId| self.vocabulary.piece(**token).is_some_and(|piece| !piece.is_empty());
        let accepted = &tokens[..tokens.iter().take(room).take_while(has_text).count()];
        self.unverified.extend(accepted);
        Ok(accepted.len())
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        let pause = Pause::new(self.patience);
        self.decoding = Some(Decoding { left: max, steps: None, pause, finished: false });
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<Verified>, BackendError> {
        loop {
            let Some(decoding) = &self.decoding else { return Ok(None) };
            if decoding.left == 0 || decoding.finished {
                self.decoding = None;
                return Ok(None);
            }
            let fault = match self.try_step(decoding.left).await {
                Ok(Some(step)) => {
                    let verified = self.take(step);
                    if let Some(decoding) = &mut self.decoding {
                        let committed = u32::try_from(verified.committed.len()).unwrap_or(u32::MAX);
                        decoding.left = decoding.left.saturating_sub(committed);
                        decoding.finished = verified.finish.is_some();
                        decoding.pause = Pause::new(self.patience);
                    }
                    return Ok(Some(verified));
                }
                Ok(None) => Fault::OutOfStep(format!("{} ended a decode too early", self.link.name)),
                // Tokens may have been on their way that are now committed there and not here.
                Err(Fault::Lost(reason)) => {
                    self.forget();
                    Fault::Lost(reason)
                }
                Err(fault) => fault,
            };
            let Some(mut decoding) = self.decoding.take() else { return Ok(None) };
            decoding.steps = None;
            let recovered = self.recover(fault, &mut decoding.pause).await;
            self.decoding = Some(decoding);
            recovered.map_err(|fault| error(&self.link, fault))?;
        }
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.vocabulary.piece(token).map(|piece| piece.to_vec()).unwrap_or_default()
    }

    fn expected(&self) -> Pass {
        self.expected
    }

    fn processor(&self) -> Processor {
        self.link.processor.clone()
    }
}

impl Drop for NodeTarget {
    fn drop(&mut self) {
        self.forget();
    }
}
