//! An answer as server-sent events.
//!
//! Nothing is sent, not even the status, before the first event has come, so that a request that
//! fails early fails with its right status.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event as Sse, KeepAlive, Sse as SseBody};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tightwad_core::{Event, Outcome};
use tightwad_net::http::ApiError;

use crate::body::shape::Shape;
use crate::choices::Update;
use crate::reply::job::Job;
use crate::reply::objects::Sum;
use crate::reply::tools::{Part, Splitter};
use crate::reply::{logprobs, objects};

/// Comments keep proxies from closing a stream that waits.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Waits for the first event, then streams.
pub(crate) async fn stream(mut job: Job) -> Result<Response, ApiError> {
    let first = job.choices.next().await;
    if let Some((_, Update::Done(Err(error)))) = first {
        let error = ApiError::from(error);
        job.metrics.answered(&job.observation, error.status().as_u16());
        return Err(error);
    }
    let mut streaming = Streaming::new(job);
    if let Some((index, update)) = first {
        streaming.take(index, update);
    }
    let events = stream::unfold(streaming, |mut streaming| async {
        let event = streaming.next().await?;
        Some((Ok::<_, Infallible>(event), streaming))
    });
    Ok(SseBody::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// One choice, as far as it was sent.
#[derive(Default)]
struct Choice {
    begun: bool,
    splitter: Splitter,
    characters: usize,
}

struct Streaming {
    job: Job,
    choices: HashMap<usize, Choice>,
    sum: Sum,
    ready: VecDeque<Sse>,
    ended: bool,
}

impl Streaming {
    fn new(job: Job) -> Self {
        Self { job, choices: HashMap::new(), sum: Sum::default(), ready: VecDeque::new(), ended: false }
    }

    async fn next(&mut self) -> Option<Sse> {
        while self.ready.is_empty() && !self.ended {
            match self.job.choices.next().await {
                Some((index, update)) => self.take(index, update),
                None => self.end(),
            }
        }
        self.ready.pop_front()
    }

    fn take(&mut self, index: usize, update: Update) {
        match update {
            Update::Event(event) => self.event(index, &event),
            Update::Done(Ok(outcome)) => self.done(index, &outcome),
            Update::Done(Err(error)) => {
                let error = ApiError::from(error);
                self.job.metrics.answered(&self.job.observation, error.status().as_u16());
                self.ready.push_back(Sse::default().data(error.object().to_string()));
                self.ended = true;
            }
        }
    }

    fn event(&mut self, index: usize, event: &Event) {
        self.job.observation.first();
        let choice = self.choices.entry(index).or_default();
        let shape = self.job.head.shape;
        let logprobs = logprobs::object(shape, &event.logprobs, choice.characters);
        choice.characters += event.text.chars().count();
        if shape == Shape::Completion {
            let object =
                json!([{"index": index, "text": event.text, "logprobs": logprobs, "finish_reason": null}]);
            self.send(object);
            return;
        }
        let parts = match self.job.head.tools {
            true => choice.splitter.push(&event.text),
            false => vec![Part::Text(event.text.clone())],
        };
        self.parts(index, parts, logprobs);
    }

    /// Sends parts of a chat message; the first delta of a choice says its role.
    fn parts(&mut self, index: usize, parts: Vec<Part>, mut logprobs: Value) {
        let choice = self.choices.entry(index).or_default();
        let mut call = choice.splitter.calls();
        call -= parts.iter().filter(|part| matches!(part, Part::Call { .. })).count();
        let mut deltas: Vec<Value> = Vec::new();
        if !std::mem::replace(&mut choice.begun, true) {
            deltas.push(json!({"role": "assistant", "content": ""}));
        }
        for part in parts {
            deltas.push(match part {
                Part::Text(text) => json!({"content": text}),
                Part::Call { name, arguments } => {
                    let mut object = objects::tool_call(&name, &arguments);
                    object["index"] = call.into();
                    call += 1;
                    json!({"tool_calls": [object]})
                }
            });
        }
        if deltas.is_empty() && !logprobs.is_null() {
            deltas.push(json!({}));
        }
        let last = deltas.len().saturating_sub(1);
        for (position, delta) in deltas.into_iter().enumerate() {
            let logprobs = if position == last { logprobs.take() } else { Value::Null };
            self.send(json!([{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null}]));
        }
    }

    fn done(&mut self, index: usize, outcome: &Outcome) {
        self.job.metrics.done(&self.job.observation, outcome);
        let rest = self.choices.entry(index).or_default().splitter.finish();
        if self.job.head.shape == Shape::Chat {
            self.parts(index, rest, Value::Null);
        }
        let calls = self.choices.entry(index).or_default().splitter.calls();
        let reason = objects::reason(outcome.finish, calls);
        let choice = match self.job.head.shape {
            Shape::Chat => json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": reason}),
            Shape::Completion => {
                json!({"index": index, "text": "", "logprobs": null, "finish_reason": reason})
            }
        };
        let mut chunk = self.job.head.chunk(json!([choice]));
        let mut own = Sum::default();
        own.add(outcome);
        chunk["tightwad"] = own.report();
        self.sum.add(outcome);
        self.ready.push_back(Sse::default().data(chunk.to_string()));
    }

    fn end(&mut self) {
        self.job.metrics.answered(&self.job.observation, 200);
        if self.job.head.usage {
            let mut chunk = self.job.head.chunk(json!([]));
            chunk["usage"] = objects::usage(&self.sum.usage);
            self.ready.push_back(Sse::default().data(chunk.to_string()));
        }
        self.ready.push_back(Sse::default().data("[DONE]"));
        self.ended = true;
    }

    fn send(&mut self, choices: Value) {
        let chunk = self.job.head.chunk(choices);
        self.ready.push_back(Sse::default().data(chunk.to_string()));
    }
}
