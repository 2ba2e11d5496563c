//! A drafter session on a node.
//!
//! The first proposal opens the session, so that an unreachable drafter does not delay the start of a
//! request.
//!
//! Invariant: while `session` is `Some`, the node's session holds the prompt and `session_output`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tightwad_core::{
    BackendError, Device, DraftCost, Drafter, DrafterSource, Heads, PreparedRequest, Proposal, TokenId,
    WireRequest,
};

use crate::client::checks::{checked_open_reply, checked_proposals};
use crate::client::link::{CallError, Link, backend_error};
use crate::client::model::Node;
use crate::client::timeouts::OPEN_TIMEOUT;
use crate::protocol::calls::{OpenCall, OpenReply, Position, ProposeCall, ProposeReply, SessionRole};
use crate::protocol::hash::TokenHash;

/// The shortest timeout of a proposal.
const MIN_PROPOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The timeout as a multiple of the expected time: a request continues without a late drafter.
const TIMEOUT_FACTOR: u32 = 5;

/// A model on a node, as a source of drafts.
#[derive(Clone)]
pub(crate) struct DraftModel {
    name: String,
    model: String,
    weights: String,
    link: Arc<Link>,
    role: SessionRole,
    time_per_row: Duration,
    time_per_token: Duration,
}

impl DraftModel {
    /// The model of `node`. `role`: it drafts itself, or its heads draft.
    pub(crate) fn new(node: &Node, role: SessionRole) -> Self {
        let (facts, name) = (&node.facts, &node.name);
        Self {
            name: if role == SessionRole::Heads { Heads::name_for(name) } else { name.clone() },
            model: node.model.clone(),
            weights: facts.weights.clone(),
            link: node.link.clone(),
            role,
            time_per_row: Duration::from_nanos(facts.time_per_row_ns),
            time_per_token: Duration::from_nanos(facts.time_per_token_ns),
        }
    }

    /// The expected time of drafting. Heads need no pass over the prompt, and a small part of a pass per token.
    fn expected_cost(&self, prompt: usize) -> DraftCost {
        let (round_trip, prompt) = (self.link.round_trip(), u32::try_from(prompt).unwrap_or(u32::MAX));
        let (startup, time_per_token) = match self.role {
            SessionRole::Heads => (Duration::ZERO, Heads::assumed_time_per_token(self.time_per_token)),
            _ => (self.time_per_row * prompt, self.time_per_token),
        };
        DraftCost { startup: startup + round_trip, time_per_token, round_trip }
    }
}

#[async_trait]
impl DrafterSource for DraftModel {
    async fn open_drafter(&self, prepared: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        if !self.link.is_up() {
            return Err(BackendError::failed(&self.link.name, "it does not reply"));
        }
        let expected = self.expected_cost(prepared.prompt.len());
        Ok(Box::new(NodeDrafter {
            source: self.clone(),
            prepared: prepared.clone(),
            session: None,
            session_output: Vec::new(),
            expected,
        }))
    }
}

struct NodeDrafter {
    source: DraftModel,
    prepared: PreparedRequest,
    session: Option<String>,
    session_output: Vec<TokenId>,
    expected: DraftCost,
}

impl NodeDrafter {
    /// Returns the session's id; opens the session if none is open.
    async fn open_session(&mut self) -> Result<String, CallError> {
        if let Some(session) = &self.session {
            return Ok(session.clone());
        }
        let call = OpenCall {
            model: self.source.model.clone(),
            role: self.source.role,
            request: WireRequest::without_prompt(&self.prepared.request),
            tokens: self.prepared.prompt.to_vec(),
            output: Vec::new(),
            max_tokens: Some(self.prepared.max_tokens),
        };
        let opened: OpenReply = self.source.link.call("/v1/node/sessions", &call, OPEN_TIMEOUT).await?;
        let opened = checked_open_reply(opened, u32::MAX);
        let opened = opened.map_err(|error| self.source.link.invalid_reply(&error))?;
        if opened.weights != self.source.weights {
            self.source.link.close(&opened.session);
            let changed = "it serves other weights under this name than when the script was loaded";
            return Err(CallError::Refused(BackendError::failed(&self.source.link.name, changed)));
        }
        self.session_output.clear();
        self.session = Some(opened.session.clone());
        Ok(opened.session)
    }

    async fn try_propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, CallError> {
        let session = self.open_session().await?;
        let common = self.session_output.iter().zip(output).take_while(|(a, b)| a == b).count();
        let mut hash = TokenHash::new(&self.prepared.prompt);
        hash.extend(&output[..common]);
        let at = u32::try_from(self.prepared.prompt.len() + common).unwrap_or(u32::MAX);
        let tokens = output[common..].to_vec();
        let call = ProposeCall { position: Position { at, hash }, tokens, max_tokens: max, min_probability };
        let start = Instant::now();
        let path = format!("/v1/node/sessions/{session}/propose");
        let reply = self.source.link.call::<_, ProposeReply>(&path, &call, OPEN_TIMEOUT).await;
        let proposals = reply.and_then(|reply| {
            self.source.link.record_round_trip(start.elapsed(), Duration::from_micros(reply.elapsed_us));
            checked_proposals(reply, max).map_err(|error| self.source.link.invalid_reply(&error))
        });
        match proposals {
            Ok(proposals) => {
                self.session_output = output.to_vec();
                Ok(proposals)
            }
            Err(error) => {
                // The node may have processed the call, so its state is unknown.
                self.close_session();
                Err(error)
            }
        }
    }

    fn close_session(&mut self) {
        if let Some(session) = self.session.take() {
            self.source.link.close(&session);
        }
        self.session_output.clear();
    }
}

#[async_trait]
impl Drafter for NodeDrafter {
    fn name(&self) -> &str {
        &self.source.name
    }

    fn device(&self) -> Device {
        self.source.link.device.clone()
    }

    fn expected_cost(&self) -> DraftCost {
        self.expected
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let startup = if self.session.is_some() { Duration::ZERO } else { self.expected.startup };
        let expected = startup + self.expected.time_per_token * max + self.expected.round_trip;
        let timeout = MIN_PROPOSE_TIMEOUT.max(expected * TIMEOUT_FACTOR);
        let attempts = async {
            match self.try_propose(output, max, min_probability).await {
                // One retry, with the prompt and the whole output.
                Err(CallError::StaleSession(_) | CallError::Transient(_)) => {
                    self.try_propose(output, max, min_probability).await
                }
                other => other,
            }
        };
        let outcome = tokio::time::timeout(timeout, attempts).await;
        match outcome {
            Ok(outcome) => outcome.map_err(|error| backend_error(&self.source.link, error)),
            Err(_) => {
                self.close_session();
                Err(BackendError::failed(
                    &self.source.link.name,
                    format!("no proposal within {} ms", timeout.as_millis()),
                ))
            }
        }
    }
}

impl Drop for NodeDrafter {
    fn drop(&mut self) {
        self.close_session();
    }
}
