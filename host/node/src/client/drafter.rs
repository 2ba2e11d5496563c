//! A session that proposes, on a node. It is opened with the first proposal: a drafter that cannot be
//! reached keeps no request waiting.
//!
//! Invariant: when `session` is there, the node's session holds the prompt and `known`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tightwad_core::{BackendError, Drafter, Expected, Processor, Proposal, Task, TokenId, WireRequest};

use crate::client::limits::OPENING;
use crate::client::link::{Fault, Link, error};
use crate::client::model::Node;
use crate::protocol::calls::{Base, OpenCall, Opened, ProposeAnswer, ProposeCall, Role};
use crate::protocol::hash::TokenHash;

/// How long a proposal may take, whatever was expected, and how many times what was expected: a request
/// goes on without a drafter that is late.
const PATIENCE: Duration = Duration::from_secs(2);
const SLACK: u32 = 5;

pub(crate) struct NodeDrafter {
    name: String,
    model: String,
    weights: String,
    link: Arc<Link>,
    task: Task,
    session: Option<String>,
    known: Vec<TokenId>,
    expected: Expected,
}

impl NodeDrafter {
    pub(crate) fn new(node: &Node, task: &Task) -> Self {
        let prompt = u32::try_from(task.prompt.len()).unwrap_or(u32::MAX);
        let expected = Expected {
            startup: Duration::from_nanos(node.facts.row_ns) * prompt + node.link.round_trip(),
            token: Duration::from_nanos(node.facts.token_ns),
            round_trip: node.link.round_trip(),
        };
        Self {
            name: node.name.clone(),
            model: node.model.clone(),
            weights: node.facts.weights.clone(),
            link: node.link.clone(),
            task: task.clone(),
            session: None,
            known: Vec::new(),
            expected,
        }
    }

    /// Opens the session where there is none; returns its id.
    async fn session(&mut self) -> Result<String, Fault> {
        if let Some(session) = &self.session {
            return Ok(session.clone());
        }
        let call = OpenCall {
            model: self.model.clone(),
            role: Role::Drafter,
            request: WireRequest::without_prompt(&self.task.request),
            tokens: self.task.prompt.to_vec(),
            output: Vec::new(),
            max_tokens: Some(self.task.max_tokens),
        };
        let opened: Opened = self.link.call("/v1/node/sessions", &call, OPENING).await?;
        if opened.weights != self.weights {
            self.link.close(&opened.session);
            let changed = "it serves another model under this name than when the script was loaded";
            return Err(Fault::Refused(BackendError::failed(&self.link.name, changed)));
        }
        self.known.clear();
        self.session = Some(opened.session.clone());
        Ok(opened.session)
    }

    async fn ask(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, Fault> {
        let session = self.session().await?;
        let common = self.known.iter().zip(output).take_while(|(a, b)| a == b).count();
        let mut hash = TokenHash::of(&self.task.prompt);
        hash.extend(&output[..common]);
        let at = u32::try_from(self.task.prompt.len() + common).unwrap_or(u32::MAX);
        let tokens = output[common..].to_vec();
        let call = ProposeCall { base: Base { at, hash }, tokens, max, min_probability };
        let start = Instant::now();
        let path = format!("/v1/node/sessions/{session}/propose");
        match self.link.call::<_, ProposeAnswer>(&path, &call, OPENING).await {
            Ok(answer) => {
                self.link.measured(start.elapsed(), Duration::from_micros(answer.us));
                self.known = output.to_vec();
                let proposal = |(token, probability)| Proposal { token, probability };
                Ok(answer.proposals.into_iter().map(proposal).collect())
            }
            Err(fault) => {
                // What the node did with the call is not known.
                self.forget();
                Err(fault)
            }
        }
    }

    fn forget(&mut self) {
        if let Some(session) = self.session.take() {
            self.link.close(&session);
        }
        self.known.clear();
    }
}

#[async_trait]
impl Drafter for NodeDrafter {
    fn name(&self) -> &str {
        &self.name
    }

    fn processor(&self) -> Processor {
        self.link.processor.clone()
    }

    fn expected(&self) -> Expected {
        self.expected
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let started = if self.session.is_some() { Duration::ZERO } else { self.expected.startup };
        let expected = started + self.expected.token * max + self.expected.round_trip;
        let limit = PATIENCE.max(expected * SLACK);
        let asked = async {
            match self.ask(output, max, min_probability).await {
                // One more time, with everything told anew.
                Err(Fault::OutOfStep(_) | Fault::Lost(_)) => self.ask(output, max, min_probability).await,
                other => other,
            }
        };
        let done = tokio::time::timeout(limit, asked).await;
        match done {
            Ok(outcome) => outcome.map_err(|fault| error(&self.link, fault)),
            Err(_) => {
                self.forget();
                Err(BackendError::failed(
                    &self.link.name,
                    format!("no proposal within {} ms", limit.as_millis()),
                ))
            }
        }
    }
}

impl Drop for NodeDrafter {
    fn drop(&mut self) {
        self.forget();
    }
}
