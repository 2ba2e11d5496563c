//! An answer in one piece.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tightwad_core::{Finish, TextLogprobs};
use tightwad_net::http::ApiError;

use crate::body::shape::Shape;
use crate::choices::Update;
use crate::reply::head::Head;
use crate::reply::job::Job;
use crate::reply::objects::Sum;
use crate::reply::tools::{Part, Splitter};
use crate::reply::{logprobs, objects};

/// One choice, growing.
#[derive(Default)]
struct Choice {
    text: String,
    logprobs: Vec<TextLogprobs>,
    finish: Option<Finish>,
}

/// Waits for all choices; the first that fails fails the answer.
pub(crate) async fn whole(mut job: Job) -> Result<Response, ApiError> {
    let mut choices: Vec<Choice> = Vec::new();
    let mut sum = Sum::default();
    while let Some((index, update)) = job.choices.next().await {
        if choices.len() <= index {
            choices.resize_with(index + 1, Choice::default);
        }
        let choice = &mut choices[index];
        match update {
            Update::Event(event) => {
                job.observation.first();
                choice.text.push_str(&event.text);
                choice.logprobs.extend(event.logprobs);
            }
            Update::Done(Ok(outcome)) => {
                job.metrics.done(&job.observation, &outcome);
                choice.finish = Some(outcome.finish);
                sum.add(&outcome);
            }
            Update::Done(Err(error)) => {
                let error = ApiError::from(error);
                job.metrics.answered(&job.observation, error.status().as_u16());
                return Err(error);
            }
        }
    }
    let choices =
        choices.iter().enumerate().map(|(index, choice)| object(&job.head, index, choice)).collect();
    job.metrics.answered(&job.observation, 200);
    Ok(Json(job.head.whole(choices, &sum)).into_response())
}

fn object(head: &Head, index: usize, choice: &Choice) -> Value {
    let logprobs = logprobs::object(head.shape, &choice.logprobs, 0);
    let finish = choice.finish.unwrap_or(Finish::Stop);
    if head.shape == Shape::Completion {
        return json!({
            "index": index, "text": choice.text, "logprobs": logprobs,
            "finish_reason": objects::reason(finish, 0),
        });
    }
    let (mut text, mut calls) = (String::new(), Vec::new());
    for part in parts(head, &choice.text) {
        match part {
            Part::Text(part) => text.push_str(&part),
            Part::Call { name, arguments } => calls.push(objects::tool_call(&name, &arguments)),
        }
    }
    let reason = objects::reason(finish, calls.len());
    let mut message = json!({"role": "assistant", "content": text, "refusal": null});
    if !calls.is_empty() {
        if text.trim().is_empty() {
            message["content"] = Value::Null;
        }
        message["tool_calls"] = calls.into();
    }
    json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason})
}

fn parts(head: &Head, text: &str) -> Vec<Part> {
    if !head.tools {
        return vec![Part::Text(text.to_owned())];
    }
    let mut splitter = Splitter::default();
    let mut parts = splitter.push(text);
    parts.extend(splitter.finish());
    parts
}
