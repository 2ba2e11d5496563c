//! One request, independent of the protocol it came by.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sampling::Sampling;

/// A conversation or a raw text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// Rendered with the model's chat template.
    Chat(Vec<Message>),
    /// Taken as it is.
    Text(String),
}

impl Prompt {
    /// The raw text, or the text of all messages, one a line.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Chat(messages) => {
                let content = |message: &Message| message.0.get("content")?.as_str().map(str::to_owned);
                messages.iter().filter_map(content).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// One message of a conversation, in OpenAI's shape: `role`, `content`, and whatever else the
/// template knows (`name`, `tool_calls`, `tool_call_id`). Content parts are joined to one string.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(pub serde_json::Map<String, Value>);

/// A function the model may call, in OpenAI's shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// The function's name.
    pub name: String,
    /// The whole OpenAI object: `{"type": "function", "function": {...}}`.
    pub definition: Value,
    /// JSON schema of the arguments.
    pub parameters: Value,
}

/// Whether and which tool must be called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// Tools are not shown to the model.
    None,
    /// Some tool must be called.
    Required,
    /// This tool must be called.
    Named(String),
}

/// The form the output must have.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON that satisfies this schema.
    JsonSchema(Value),
    /// Text of this grammar, in llguidance's Lark syntax.
    Grammar(String),
}

/// One generation.
#[derive(Debug, Clone)]
pub struct Request {
    /// Identifies the request in logs.
    pub id: String,
    /// What to answer.
    pub prompt: Prompt,
    /// How to choose tokens; validated.
    pub sampling: Sampling,
    /// Most tokens to generate; `None`: until the model stops or its context is full.
    pub max_tokens: Option<u32>,
    /// Generation ends before the first of these; never empty strings.
    pub stop: Vec<String>,
    /// The form of the output.
    pub format: Format,
    /// Tools the model may call.
    pub tools: Vec<Tool>,
    /// Whether and which tool must be called.
    pub tool_choice: ToolChoice,
}

impl Request {
    /// True when the output must have some form.
    #[must_use]
    pub fn is_constrained(&self) -> bool {
        let called = !matches!(self.tool_choice, ToolChoice::Auto | ToolChoice::None);
        !matches!(self.format, Format::Text) || (called && !self.tools.is_empty())
    }
}

impl Default for Request {
    /// An empty text, answered freely.
    fn default() -> Self {
        Self {
            id: String::new(),
            prompt: Prompt::Text(String::new()),
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            format: Format::default(),
            tools: Vec::new(),
            tool_choice: ToolChoice::default(),
        }
    }
}
