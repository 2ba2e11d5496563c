//! Turns a request into tokens and a constraint.

use std::sync::Arc;

use async_trait::async_trait;
use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};
use tightwad_core::{BackendError, Format, Message, Prompt, Request, TokenId, Tokenizer, Tool, ToolChoice};

use crate::constraint::Constraint;
use crate::protected_text::ProtectedText;
use crate::template::{ChatTemplate, TemplateError};
use crate::text::{TextError, TextThread, on_text_thread};
use crate::weights::Weights;

/// The prompt and the constraint of a session.
pub(crate) struct PreparedInput {
    pub prompt: Vec<TokenId>,
    pub text: Arc<str>,
    pub constraint: Option<Constraint>,
}

/// Prepares requests for one model.
pub(crate) struct RequestReader {
    pub weights: Arc<Weights>,
    template: Result<ChatTemplate, TemplateError>,
    context: u32,
}

impl RequestReader {
    /// A reader for `weights` and sequences of `context` tokens. `template` replaces the chat template of the file.
    pub(crate) fn new(weights: Arc<Weights>, context: u32, template: Option<&str>) -> Self {
        let template = match template {
            Some(source) => ChatTemplate::new(&weights, source.to_owned(), None),
            None => ChatTemplate::from_weights(&weights),
        };
        Self { weights, template, context }
    }

    /// The reason why chat requests fail, if the model has no usable chat template.
    pub(crate) fn template_error(&self) -> Option<&TemplateError> {
        self.template.as_ref().err()
    }

    /// True when the chat template describes tools.
    pub(crate) fn supports_tools(&self) -> bool {
        self.template.as_ref().is_ok_and(ChatTemplate::supports_tools)
    }

    /// The model's tokenizer.
    pub(crate) fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::new(WeightsTokenizer { weights: self.weights.clone(), context: self.context })
    }

    /// Renders and tokenizes the prompt and compiles the constraint, on a text thread. Errors name `backend`.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        backend: &str,
        request: &Arc<Request>,
    ) -> Result<PreparedInput, BackendError> {
        let (reader, request) = (self.clone(), request.clone());
        let prepared = on_text_thread(move |thread| reader.prepare_on_thread(thread, &request)).await;
        prepared.map_err(|error| text_error(backend, None, &error))?
    }

    fn prepare_on_thread(
        &self,
        thread: &TextThread,
        request: &Request,
    ) -> Result<PreparedInput, BackendError> {
        let (weights, context) = (&self.weights, self.context);
        let (tokens, text, field) = match &request.prompt {
            Prompt::Text(text) => (weights.tokenize(thread, text, true, context), text.clone(), "prompt"),
            Prompt::Chat(messages) => {
                let rendered = self.render(messages, request)?;
                (weights.tokenize_rendered(thread, &rendered, context), rendered.text.into(), "messages")
            }
        };
        let prompt = tokens.map_err(|error| text_error("", Some(field), &error))?;
        let constraint = match grammar(request)? {
            Some((grammar, parameter)) => {
                Some(weights.constraint(grammar).map_err(|error| invalid(parameter, error))?)
            }
            None => None,
        };
        Ok(PreparedInput { prompt, text, constraint })
    }

    fn render(&self, messages: &[Message], request: &Request) -> Result<ProtectedText, BackendError> {
        let template = self.template.as_ref().map_err(|error| invalid("messages", error))?;
        let show_tools = !request.tools.is_empty() && request.tool_choice != ToolChoice::None;
        let shown_tools = if show_tools { &request.tools[..] } else { &[] };
        let tools: Vec<&Value> = shown_tools.iter().map(|tool| &tool.definition).collect();
        let max_bytes = self.weights.max_text_bytes(self.context);
        match template.render(&self.weights, messages, &tools, &request.chat, max_bytes) {
            Err(TemplateError::TooLong(bytes)) => {
                Err(text_error("", Some("messages"), &self.weights.too_long_error(bytes, self.context)))
            }
            // The name of the backend is added behind this thread.
            Err(TemplateError::Unavailable(error)) => Err(BackendError::failed("", error.to_string())),
            other => other.map_err(|error| invalid("messages", error)),
        }
    }
}

/// The tokenizer of a model in this process.
pub struct WeightsTokenizer {
    /// The model.
    pub weights: Arc<Weights>,
    /// The maximum number of tokens of a text.
    pub context: u32,
}

#[async_trait]
impl Tokenizer for WeightsTokenizer {
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError> {
        let (weights, context, text) = (self.weights.clone(), self.context, text.to_owned());
        let tokens = on_text_thread(move |thread| weights.tokenize(thread, &text, false, context)).await;
        tokens.and_then(|tokens| tokens).map_err(|error| text_error("the tokenizer", None, &error))
    }

    async fn detokenize(&self, tokens: &[TokenId]) -> Result<Vec<u8>, BackendError> {
        Ok(tokens.iter().flat_map(|token| self.weights.token_bytes(*token)).collect())
    }
}

/// Converts the error of a text into a backend's error.
fn text_error(backend: &str, parameter: Option<&'static str>, error: &TextError) -> BackendError {
    let message = error.to_string();
    match error {
        TextError::TooLong { .. } => {
            BackendError::Invalid { message, parameter, code: Some("context_length_exceeded") }
        }
        TextError::LongRun { .. } | TextError::TooManySpecialTokens { .. } => {
            BackendError::Invalid { message, parameter, code: None }
        }
        TextError::Busy { .. } => BackendError::Busy { backend: backend.to_owned(), message },
        TextError::Crashed(_) => BackendError::failed(backend, message),
    }
}

/// The grammar of the output, and the request's field that asks for it.
fn grammar(request: &Request) -> Result<Option<(TopLevelGrammar, &'static str)>, BackendError> {
    let allowed: Vec<&Tool> = match &request.tool_choice {
        ToolChoice::Auto | ToolChoice::None => Vec::new(),
        ToolChoice::Required => request.tools.iter().collect(),
        ToolChoice::Named(name) => {
            let named: Vec<_> = request.tools.iter().filter(|tool| tool.name == *name).collect();
            if named.is_empty() {
                return Err(invalid("tool_choice", format!("no tool is named '{name}'")));
            }
            named
        }
    };
    if !allowed.is_empty() {
        return Ok(Some((tool_call_grammar(&allowed), "tools")));
    }
    Ok(match &request.format {
        Format::Text => None,
        Format::JsonObject => {
            Some((TopLevelGrammar::from_json_schema(json!({"type": "object"})), "response_format"))
        }
        Format::JsonSchema(schema) => {
            Some((TopLevelGrammar::from_json_schema(Value::clone(schema)), "response_format"))
        }
        Format::Grammar(text) => Some((TopLevelGrammar::from_lark(text.as_ref().to_owned()), "grammar")),
    })
}

/// The grammar of one tool call, in the form that Hermes and Qwen templates teach.
fn tool_call_grammar(tools: &[&Tool]) -> TopLevelGrammar {
    let any_object = json!({"type": "object"});
    let call_schema = |tool: &&Tool| {
        json!({
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": tool.parameters().unwrap_or(&any_object)},
            "required": ["name", "arguments"],
            "additionalProperties": false,
        })
    };
    let schema = json!({"anyOf": tools.iter().map(call_schema).collect::<Vec<_>>()});
    TopLevelGrammar::from_lark(format!(
        "start: \"<tool_call>\\n\" call \"\\n</tool_call>\"\ncall: %json {schema}\n"
    ))
}

fn invalid(parameter: &'static str, message: impl ToString) -> BackendError {
    BackendError::Invalid { message: message.to_string(), parameter: Some(parameter), code: None }
}
