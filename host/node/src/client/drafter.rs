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
    BackendError, Device, DraftCost, Drafter, PreparedRequest, Proposal, TokenId, WireRequest,
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

pub(crate) struct NodeDrafter {
    name: String,
    model: String,
    weights: String,
    link: Arc<Link>,
    prepared: PreparedRequest,
    session: Option<String>,
    session_output: Vec<TokenId>,
    expected: DraftCost,
}

impl NodeDrafter {
    pub(crate) fn new(node: &Node, prepared: &PreparedRequest) -> Self {
        let prompt = u32::try_from(prepared.prompt.len()).unwrap_or(u32::MAX);
        let expected = DraftCost {
            startup: Duration::from_nanos(node.facts.time_per_row_ns) * prompt + node.link.round_trip(),
            time_per_token: Duration::from_nanos(node.facts.time_per_token_ns),
            round_trip: node.link.round_trip(),
        };
        Self {
            name: node.name.clone(),
            model: node.model.clone(),
            weights: node.facts.weights.clone(),
            link: node.link.clone(),
            prepared: prepared.clone(),
            session: None,
            session_output: Vec::new(),
            expected,
        }
    }

    /// Returns the session's id; opens the session if none is open.
    async fn open_session(&mut self) -> Result<String, CallError> {
        if let Some(session) = &self.session {
            return Ok(session.clone());
        }
        let call = OpenCall {
            model: self.model.clone(),
            role: SessionRole::Drafter,
            request: WireRequest::without_prompt(&self.prepared.request),
            tokens: self.prepared.prompt.to_vec(),
            output: Vec::new(),
            max_tokens: Some(self.prepared.max_tokens),
        };
        let opened: OpenReply = self.link.call("/v1/node/sessions", &call, OPEN_TIMEOUT).await?;
        let opened = checked_open_reply(opened, u32::MAX);
        let opened = opened.map_err(|error| self.link.invalid_reply(&error))?;
        if opened.weights != self.weights {
            self.link.close(&opened.session);
            let changed = "it serves other weights under this name than when the script was loaded";
            return Err(CallError::Refused(BackendError::failed(&self.link.name, changed)));
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
        let reply = self.link.call::<_, ProposeReply>(&path, &call, OPEN_TIMEOUT).await;
        let proposals = reply.and_then(|reply| {
            self.link.record_round_trip(start.elapsed(), Duration::from_micros(reply.elapsed_us));
            checked_proposals(reply, max).map_err(|error| self.link.invalid_reply(&error))
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
            self.link.close(&session);
        }
        self.session_output.clear();
    }
}

#[async_trait]
impl Drafter for NodeDrafter {
    fn name(&self) -> &str {
        &self.name
    }

    fn device(&self) -> Device {
        self.link.device.clone()
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
            Ok(outcome) => outcome.map_err(|error| backend_error(&self.link, error)),
            Err(_) => {
                self.close_session();
                Err(BackendError::failed(
                    &self.link.name,
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
