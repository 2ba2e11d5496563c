//! The fields that change how a chat template renders a conversation.

use serde_json::Value;
use tightwad_core::{ChatOptions, Continuation, Message};
use tightwad_net::http::ApiError;

use crate::body::fields::{ContinueBody, ContinuedPart, RequestBody};

/// Variables of a template that the host sets.
const RESERVED_VARIABLES: [&str; 5] =
    ["messages", "tools", "bos_token", "eos_token", "add_generation_prompt"];

/// Checks the fields of a chat with `messages`.
pub(crate) fn chat_options(body: &mut RequestBody, messages: &[Message]) -> Result<ChatOptions, ApiError> {
    let mut variables = body.chat_template_kwargs.take().unwrap_or_default();
    if let Some(name) = RESERVED_VARIABLES.iter().find(|name| variables.contains_key(**name)) {
        let message = format!("'chat_template_kwargs' cannot set '{name}': the host sets it");
        return Err(ApiError::invalid(Some("chat_template_kwargs"), message));
    }
    match body.reasoning_effort.take() {
        Some(effort) if effort == "none" => drop(variables.insert("enable_thinking".into(), false.into())),
        Some(effort) => drop(variables.entry("reasoning_effort").or_insert(effort.into())),
        None => {}
    }
    if let Some(enable) = body.enable_thinking {
        variables.insert("enable_thinking".into(), enable.into());
    }
    if variables.get("enable_thinking").is_some_and(|value| !value.is_boolean()) {
        return Err(ApiError::invalid(Some("chat_template_kwargs"), "'enable_thinking' is true or false"));
    }
    let continuation = match body.continue_final_message.take() {
        None | Some(ContinueBody::Switch(false)) => None,
        Some(ContinueBody::Switch(true)) => Some(Continuation::Auto),
        Some(ContinueBody::Part(ContinuedPart::Content)) => Some(Continuation::Content),
        Some(ContinueBody::Part(ContinuedPart::ReasoningContent)) => Some(Continuation::Reasoning),
    };
    if continuation.is_some() {
        check_continuation(body, messages)?;
    }
    let add_generation_prompt = body.add_generation_prompt.unwrap_or(true) && continuation.is_none();
    Ok(ChatOptions { variables: variables.into(), add_generation_prompt, continuation })
}

fn check_continuation(body: &RequestBody, messages: &[Message]) -> Result<(), ApiError> {
    let last = messages.last().map(|message| &message.0);
    let is_answer = last.and_then(|last| last.get("role")).and_then(Value::as_str) == Some("assistant");
    let has_calls =
        last.and_then(|last| last.get("tool_calls")?.as_array()).is_some_and(|calls| !calls.is_empty());
    let has_text =
        |field: &str| last.and_then(|last| last.get(field)?.as_str()).is_some_and(|text| !text.is_empty());
    let reason = if !is_answer || has_calls {
        "needs a last message of the assistant without tool calls"
    } else if !has_text("content") && !has_text("reasoning_content") {
        "needs a last message with text"
    } else if body.add_generation_prompt == Some(true) {
        "and 'add_generation_prompt' exclude each other"
    } else {
        return Ok(());
    };
    let message = format!("'continue_final_message' {reason}");
    Err(ApiError::invalid(Some("continue_final_message"), message))
}
