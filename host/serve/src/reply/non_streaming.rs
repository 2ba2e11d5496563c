//! Responses without streaming: one JSON object.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tightwad_core::{FinishReason, TextLogprobs};
use tightwad_net::http::ApiError;

use crate::choices::Update;
use crate::endpoint::Endpoint;
use crate::reply::context::ResponseContext;
use crate::reply::meta::ResponseMeta;
use crate::reply::objects::Totals;
use crate::reply::tools::{Part, ToolCallParser};
use crate::reply::{logprobs, objects};

/// The state of one choice.
#[derive(Default)]
struct ChoiceState {
    text: String,
    logprobs: Vec<TextLogprobs>,
    finish: Option<FinishReason>,
}

/// Waits for all choices. The first error fails the response.
pub(crate) async fn respond(mut context: ResponseContext) -> Result<Response, ApiError> {
    let mut choices: Vec<ChoiceState> = Vec::new();
    let mut totals = Totals::default();
    while let Some((index, update)) = context.choices.next().await {
        if choices.len() <= index {
            choices.resize_with(index + 1, ChoiceState::default);
        }
        let choice = &mut choices[index];
        match update {
            Update::Event(event) => {
                context.measurement.record_event(index);
                choice.text.push_str(&event.text);
                choice.logprobs.extend(event.logprobs);
            }
            Update::Done(Ok(outcome)) => {
                context.measurement.record_outcome(index, &outcome);
                choice.finish = Some(outcome.finish_reason);
                totals.add(context.meta.prompt_of(index), &outcome);
            }
            Update::Done(Err(error)) => {
                let error = ApiError::from(error);
                context.measurement.finish(error.status().as_u16());
                return Err(error);
            }
        }
    }
    let choices =
        choices.iter().enumerate().map(|(index, choice)| object(&context.meta, index, choice)).collect();
    context.measurement.finish(200);
    Ok(Json(context.meta.response(choices, &totals)).into_response())
}

fn object(meta: &ResponseMeta, index: usize, choice: &ChoiceState) -> Value {
    let logprobs = logprobs::object(meta.endpoint, &choice.logprobs, 0);
    let finish = choice.finish.unwrap_or(FinishReason::Stop);
    if meta.endpoint == Endpoint::Completion {
        return json!({
            "index": index, "text": choice.text, "logprobs": logprobs,
            "finish_reason": objects::finish_reason(finish, 0),
        });
    }
    let (mut text, mut calls) = (String::new(), Vec::new());
    for part in parts(meta, &choice.text) {
        match part {
            Part::Text(part) => text.push_str(&part),
            Part::Call { name, arguments } => calls.push(objects::tool_call(&name, &arguments)),
        }
    }
    let reason = objects::finish_reason(finish, calls.len());
    let mut message = json!({"role": "assistant", "content": text, "refusal": null});
    if !calls.is_empty() {
        if text.trim().is_empty() {
            message["content"] = Value::Null;
        }
        message["tool_calls"] = calls.into();
    }
    json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason})
}

fn parts(meta: &ResponseMeta, text: &str) -> Vec<Part> {
    if !meta.tools {
        return vec![Part::Text(text.to_owned())];
    }
    let mut parser = ToolCallParser::default();
    let mut parts = parser.push(text);
    parts.extend(parser.finish());
    parts
}
