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
    /// The prompt contains earlier calls of tools.
    #[serde(rename = "supports_tool_calls")]
    pub tool_calls: bool,
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
}

impl Template {
    /// Compiles the template and tries conversations.
    ///
    /// # Errors
    ///
    /// [`ChatError::Broken`] if the template does not compile; [`ChatError::TooSlow`] and [`ChatError::Crashed`] if it
    /// cannot be used.
    pub fn inspect(&self) -> Result<TemplateFacts, ChatError> {
        let answer = helpers::answer(&self.request("inspect"))?;
        serde_json::from_value(answer).map_err(|error| ChatError::Crashed(error.to_string()))
    }

    /// Renders the prompt.
    ///
    /// # Errors
    ///
    /// [`ChatError::Refused`] with the template's message, and as [`Self::inspect`].
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, ChatError> {
        let mut request = self.request("render");
        request["messages"] = conversation.messages.clone();
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
