//! A request, independent of the protocol that carried it.
//!
//! The large parts of a request are shared: a clone of a request costs no more than a few counters, however long its
//! conversation is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api_key::KeyName;
use crate::facts::is_default;
use crate::sampling::Sampling;
use crate::usage_meter::UsageMeter;

/// A conversation or a raw text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// Messages that the model's chat template renders.
    Chat(Arc<[Message]>),
    /// Text that is used without a template.
    Text(Arc<str>),
}

impl Prompt {
    /// The raw text, or the text of all messages, joined by line breaks.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.as_ref().to_owned(),
            Self::Chat(messages) => {
                let content = |message: &Message| message.0.get("content")?.as_str().map(str::to_owned);
                messages.iter().filter_map(content).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// One message of a conversation, in OpenAI's form: `role`, `content`, and other fields that the template uses (`name`,
/// `tool_calls`, `tool_call_id`). Content parts are joined to one string.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(pub serde_json::Map<String, Value>);

/// The part of the last message that the answer continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Continuation {
    /// The text. The reasoning, if the message has no text.
    Auto,
    /// The text.
    Content,
    /// The reasoning.
    Reasoning,
}

/// How the chat template renders a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChatOptions {
    /// Further variables of the template, such as `enable_thinking`.
    #[serde(skip_serializing_if = "is_default")]
    pub variables: Arc<serde_json::Map<String, Value>>,
    /// True if the prompt ends with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// The prompt ends with the last message, which the answer continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continuation: Option<Continuation>,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self { variables: Arc::default(), add_generation_prompt: true, continuation: None }
    }
}

/// A function that the model may call, in OpenAI's form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// The function's name.
    pub name: String,
    /// The complete OpenAI object: `{"type": "function", "function": {...}}`.
    pub definition: Value,
}

impl Tool {
    /// The JSON schema of the arguments; `None`: any object.
    #[must_use]
    pub fn parameters(&self) -> Option<&Value> {
        self.definition.pointer("/function/parameters").filter(|parameters| !parameters.is_null())
    }
}

/// The tool that the model must call, if any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// The prompt does not mention the tools.
    None,
    /// The model must call a tool.
    Required,
    /// The model must call this tool.
    Named(String),
}

/// The format of the output.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that satisfies this schema.
    JsonSchema(Arc<Value>),
    /// Text that matches this grammar, in llguidance's Lark syntax.
    Grammar(Arc<str>),
}

/// A request for one generation; cheap to clone.
#[derive(Debug, Clone)]
pub struct Request {
    /// Identifies the request in logs.
    pub id: String,
    /// The conversation or text to continue.
    pub prompt: Prompt,
    /// How the chat template renders the conversation.
    pub chat: ChatOptions,
    /// The validated sampling settings.
    pub sampling: Sampling,
    /// The maximum number of generated tokens; `None`: until the model stops or its context is full.
    pub max_tokens: Option<u32>,
    /// Stop strings. The answer ends before the first stop string. No stop string is empty.
    pub stop: Arc<[String]>,
    /// The format of the output.
    pub format: Format,
    /// The tools that the model may call.
    pub tools: Arc<[Tool]>,
    /// The tool that the model must call, if any.
    pub tool_choice: ToolChoice,
    /// The name of the client's API key; `None`: it has none. Memories of earlier requests are separated by it.
    pub owner: Option<KeyName>,
    /// Counts the tokens of the request and of its clones while they run.
    pub meter: Arc<UsageMeter>,
}

impl Request {
    /// True when a grammar, a schema or a tool call restricts the output.
    #[must_use]
    pub fn is_constrained(&self) -> bool {
        let must_call = !matches!(self.tool_choice, ToolChoice::Auto | ToolChoice::None);
        !matches!(self.format, Format::Text) || (must_call && !self.tools.is_empty())
    }
}

impl Default for Request {
    /// An empty text without restrictions.
    fn default() -> Self {
        Self {
            id: String::new(),
            prompt: Prompt::Text(Arc::default()),
            chat: ChatOptions::default(),
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Arc::default(),
            format: Format::default(),
            tools: Arc::default(),
            tool_choice: ToolChoice::default(),
            owner: None,
            meter: Arc::default(),
        }
    }
}
