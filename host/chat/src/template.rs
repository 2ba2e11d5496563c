//! A chat template and its conversations.

use serde::Deserialize;
use serde_json::{Value, json};
use tightwad_core::{ChatOptions, Continuation};

use crate::error::ChatError;
use crate::helpers;

/// A chat template of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The Jinja source.
    pub source: String,
    /// The Jinja source for conversations with tools, if the model has another one for them.
    pub tool_source: Option<String>,
    /// The text of the token that begins a sequence (`bos_token`); empty if the model has none.
    pub bos: String,
    /// The text of the token that ends a sequence (`eos_token`); empty if the model has none.
    pub eos: String,
}

/// The properties of a template, which trial conversations show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct TemplateFacts {
    /// The prompt describes tools.
    #[serde(rename = "supports_tools")]
    pub tools: bool,
    /// Answers have a part for reasoning.
    #[serde(rename = "supports_thinking")]
    pub thinking: bool,
}

/// A conversation to render.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    /// The messages, in OpenAI's form.
    pub messages: &'a Value,
    /// The tools, in OpenAI's form; an empty array: none.
    pub tools: &'a Value,
    /// How to render them.
    pub options: &'a ChatOptions,
    /// The maximum length of the prompt in bytes.
    pub max_bytes: usize,
}

impl Template {
    /// Compiles the template and tries conversations.
    ///
    /// # Errors
    ///
    /// [`ChatError::Broken`] if the template does not compile; [`ChatError::TooSlow`] and [`ChatError::Crashed`] if it
    /// cannot be used.
    pub fn inspect(&self) -> Result<TemplateFacts, ChatError> {
        if self.source.trim().is_empty() {
            return Err(ChatError::Broken("it is empty".to_owned()));
        }
        let answer = match helpers::answer(&self.request("inspect")) {
            // The machine may have lacked something for a moment.
            Err(ChatError::Crashed(_) | ChatError::NotStarted(_) | ChatError::NoAnswer { .. }) => {
                helpers::answer(&self.request("inspect"))?
            }
            answer => answer?,
        };
        serde_json::from_value(answer).map_err(|error| ChatError::Crashed(error.to_string()))
    }

    /// Renders the prompt.
    ///
    /// # Errors
    ///
    /// [`ChatError::Refused`] with the template's message, [`ChatError::TooLong`], and as [`Self::inspect`].
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, ChatError> {
        let mut request = self.request("render");
        request["messages"] = complete(conversation.messages.clone());
        request["max_bytes"] = conversation.max_bytes.into();
        request["variables"] = Value::Object(conversation.options.variables.as_ref().clone());
        request["add_generation_prompt"] = conversation.options.add_generation_prompt.into();
        if conversation.tools.as_array().is_some_and(|tools| !tools.is_empty()) {
            request["tools"] = conversation.tools.clone();
        }
        if let Some(continuation) = conversation.options.continuation {
            request["continue_final_message"] = match continuation {
                Continuation::Auto => json!(true),
                Continuation::Content => json!("content"),
                Continuation::Reasoning => json!("reasoning_content"),
            };
        }
        let answer = helpers::answer(&request)?;
        let bytes = answer.get("bytes").and_then(Value::as_u64).unwrap_or(0) as usize;
        if bytes > conversation.max_bytes {
            return Err(ChatError::TooLong { bytes });
        }
        let prompt = answer.get("prompt").and_then(Value::as_str).map(str::to_owned);
        prompt.ok_or_else(|| ChatError::Crashed("its answer has no prompt".to_owned()))
    }

    fn request(&self, operation: &str) -> Value {
        json!({
            "operation": operation,
            "template": self.source,
            "tool_template": self.tool_source.as_deref().unwrap_or_default(),
            "bos": self.bos,
            "eos": self.eos,
        })
    }
}

/// Removes nulls from messages and their calls, and adds the fields that `common` needs: clients send back what they got.
fn complete(mut messages: Value) -> Value {
    for message in messages.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        message.retain(|_, value| !value.is_null());
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten().filter_map(Value::as_object_mut) {
            call.retain(|_, value| !value.is_null());
            call.entry("type").or_insert("function".into());
            if let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) {
                function.retain(|_, value| !value.is_null());
                function.entry("arguments").or_insert("{}".into());
            }
        }
        if message.get("tool_calls").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            message.remove("tool_calls");
            message.entry("content").or_insert("".into());
        }
    }
    messages
}
