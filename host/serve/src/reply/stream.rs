//! Streamed responses: server-sent events.
//!
//! The server waits a short time for the first update before it sends the status. A request that fails early therefore
//! gets the right status, and a client of a busy model still sees the headers and a comment soon.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event as Sse, KeepAlive, Sse as SseBody};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tightwad_core::{Event, Outcome};
use tightwad_net::http::ApiError;

use crate::choices::Update;
use crate::endpoint::Endpoint;
use crate::reply::context::ResponseContext;
use crate::reply::objects::Totals;
use crate::reply::tools::{Part, ToolCallParser};
use crate::reply::{logprobs, objects};

/// The time to wait for the first update before the status is sent.
const FIRST_UPDATE_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval of SSE comments, which keep clients and proxies from closing an idle stream.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Waits a short time for the first update, then starts the stream.
pub(crate) async fn respond(mut context: ResponseContext) -> Result<Response, ApiError> {
    let first = tokio::time::timeout(FIRST_UPDATE_TIMEOUT, context.choices.next()).await;
    if let Ok(Some((_, Update::Done(Err(error))))) = first {
        let error = ApiError::from(error);
        context.measurement.finish(error.status().as_u16());
        return Err(error);
    }
    let mut events = EventStream::new(context);
    match first {
        Ok(Some((index, update))) => events.on_update(index, update),
        Ok(None) => {}
        Err(_) => events.ready.push_back(Sse::default().comment("waiting")),
    }
    let body = stream::unfold(events, |mut events| async {
        let event = events.next().await?;
        Some((Ok::<_, Infallible>(event), events))
    });
    let body = SseBody::new(body).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL));
    // nginx collects a response before it passes it on, unless this header forbids it.
    Ok(([("x-accel-buffering", "no")], body).into_response())
}

/// The state of one choice in the stream.
#[derive(Default)]
struct ChoiceState {
    role_sent: bool,
    parser: ToolCallParser,
    sent_characters: usize,
}

struct EventStream {
    context: ResponseContext,
    choices: HashMap<usize, ChoiceState>,
    totals: Totals,
    ready: VecDeque<Sse>,
    ended: bool,
}

impl EventStream {
    fn new(context: ResponseContext) -> Self {
        Self {
            context,
            choices: HashMap::new(),
            totals: Totals::default(),
            ready: VecDeque::new(),
            ended: false,
        }
    }

    async fn next(&mut self) -> Option<Sse> {
        while self.ready.is_empty() && !self.ended {
            tokio::select! {
                // The deadline comes first: a fast model always has a further update.
                biased;
                () = self.context.shutdown.deadline() => self.shut_down(),
                update = self.context.choices.next() => match update {
                    Some((index, update)) => self.on_update(index, update),
                    None => self.finish(),
                },
            }
        }
        self.ready.pop_front()
    }

    /// Ends the stream at the deadline of the shutdown. Dropping the choices then ends their work.
    fn shut_down(&mut self) {
        let error = ApiError::shutting_down();
        self.context.measurement.finish(error.status().as_u16());
        self.ready.push_back(Sse::default().data(error.object().to_string()));
        self.end();
    }

    fn on_update(&mut self, index: usize, update: Update) {
        match update {
            Update::Event(event) => self.on_event(index, &event),
            Update::Done(Ok(outcome)) => self.on_done(index, &outcome),
            Update::Done(Err(error)) => {
                let error = ApiError::from(error);
                self.context.measurement.finish(error.status().as_u16());
                self.ready.push_back(Sse::default().data(error.object().to_string()));
                self.end();
            }
        }
    }

    fn on_event(&mut self, index: usize, event: &Event) {
        self.context.measurement.record_event(index);
        let choice = self.choices.entry(index).or_default();
        let endpoint = self.context.meta.endpoint;
        let logprobs = logprobs::object(endpoint, &event.logprobs, choice.sent_characters);
        choice.sent_characters += event.text.chars().count();
        if endpoint == Endpoint::Completion {
            let object =
                json!([{"index": index, "text": event.text, "logprobs": logprobs, "finish_reason": null}]);
            self.send(object);
            return;
        }
        let parts = match self.context.meta.tools {
            true => choice.parser.push(&event.text),
            false => vec![Part::Text(event.text.clone())],
        };
        self.send_parts(index, parts, logprobs);
    }

    /// Sends parts of a chat message. The first delta of a choice has the role.
    fn send_parts(&mut self, index: usize, parts: Vec<Part>, mut logprobs: Value) {
        let choice = self.choices.entry(index).or_default();
        let mut call = choice.parser.call_count();
        call -= parts.iter().filter(|part| matches!(part, Part::Call { .. })).count();
        let mut deltas: Vec<Value> = Vec::new();
        if !std::mem::replace(&mut choice.role_sent, true) {
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

    fn on_done(&mut self, index: usize, outcome: &Outcome) {
        self.context.measurement.record_outcome(index, outcome);
        let last_parts = self.choices.entry(index).or_default().parser.finish();
        if self.context.meta.endpoint == Endpoint::Chat {
            self.send_parts(index, last_parts, Value::Null);
        }
        let calls = self.choices.entry(index).or_default().parser.call_count();
        let reason = objects::finish_reason(outcome.finish_reason, calls);
        let choice = match self.context.meta.endpoint {
            Endpoint::Chat => json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": reason}),
            Endpoint::Completion => {
                json!({"index": index, "text": "", "logprobs": null, "finish_reason": reason})
            }
        };
        let mut chunk = self.context.meta.chunk(json!([choice]));
        let mut choice_totals = Totals::default();
        choice_totals.add(0, outcome);
        chunk["tightwad"] = choice_totals.report();
        self.totals.add(self.context.meta.prompt_of(index), outcome);
        self.ready.push_back(Sse::default().data(chunk.to_string()));
    }

    fn finish(&mut self) {
        self.context.measurement.finish(200);
        if self.context.meta.usage {
            let mut chunk = self.context.meta.chunk(json!([]));
            chunk["usage"] = objects::usage(self.totals.usage());
            self.ready.push_back(Sse::default().data(chunk.to_string()));
        }
        self.end();
    }

    /// Ends the stream. Clients wait for `[DONE]` after an error too.
    fn end(&mut self) {
        self.ready.push_back(Sse::default().data("[DONE]"));
        self.ended = true;
    }

    fn send(&mut self, choices: Value) {
        let chunk = self.context.meta.chunk(choices);
        self.ready.push_back(Sse::default().data(chunk.to_string()));
    }
}
