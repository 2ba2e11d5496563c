//! The chat template of a GGUF file.

use llama_cpp_2::model::LlamaModel;
use serde_json::Value;
use tightwad_chat::{ChatError, Conversation, Template, TemplateFacts};
use tightwad_core::{ChatOptions, Message};

use crate::protected_text::{self, ProtectedText};
use crate::weights::Weights;

/// An error of a chat template.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TemplateError {
    /// The model has no chat template: it is a base model.
    #[error("this model has no chat template. Use /v1/completions, or a model that is tuned for chat")]
    Missing,
    /// The template does not compile, or it fails in a trial.
    #[error("this model's chat template {0}. Use /v1/completions, or another file of the model")]
    Unusable(String),
    /// The template failed or rejected the messages.
    #[error("the model's chat template rejects these messages: {0}")]
    Refused(ChatError),
    /// The machine cannot render templates now.
    #[error("{0}")]
    Unavailable(ChatError),
    /// The rendered text is too long; it has this number of bytes.
    #[error("the messages are too long: their text has more than {0} bytes")]
    TooLong(usize),
}

/// A model's chat template.
pub struct ChatTemplate {
    template: Template,
    facts: TemplateFacts,
}

impl ChatTemplate {
    /// Compiles the template of `weights`, and tries it.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Missing`] for base models, [`TemplateError::Unusable`] if the template does not compile or fails.
    pub fn from_weights(weights: &Weights) -> Result<Self, TemplateError> {
        let source = source(&weights.model, None).ok_or(TemplateError::Missing)?;
        Self::new(weights, source, source_for_tools(&weights.model))
    }

    /// Compiles the template `source` for `weights`, and tries it. `tool_source` renders conversations with tools.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Unusable`] if the template does not compile or fails.
    pub(crate) fn new(
        weights: &Weights,
        source: String,
        tool_source: Option<String>,
    ) -> Result<Self, TemplateError> {
        let (bos, eos) = weights.bos_eos_text();
        let template = Template { source, tool_source, bos, eos };
        let facts = template.inspect().map_err(unusable)?;
        Ok(Self { template, facts })
    }

    /// True if prompts describe tools.
    #[must_use]
    pub fn supports_tools(&self) -> bool {
        self.facts.tools
    }

    /// Renders `messages` and `tools` (OpenAI objects). Special tokens that the messages and tools mention are protected.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Refused`] with the template's message, [`TemplateError::TooLong`] for a text of more
    /// than `max_bytes` bytes.
    pub(crate) fn render(
        &self,
        weights: &Weights,
        messages: &[Message],
        tools: &[&Value],
        options: &ChatOptions,
        max_bytes: usize,
    ) -> Result<ProtectedText, TemplateError> {
        let mut messages = messages.iter().map(|message| Value::Object(message.0.clone())).collect();
        let mut tools = tools.iter().copied().cloned().collect();
        let mut variables = Value::Object(options.variables.as_ref().clone());
        let tokens = weights.special_tokens();
        let marked = protected_text::protect(tokens, [&mut messages, &mut tools, &mut variables]);
        let Value::Object(variables) = variables else { unreachable!("an object stays one") };
        let options = ChatOptions { variables: variables.into(), ..options.clone() };
        let conversation = Conversation { messages: &messages, tools: &tools, options: &options, max_bytes };
        let text = self.template.render(&conversation).map_err(|error| match error {
            ChatError::TooLong { bytes } => TemplateError::TooLong(bytes),
            ChatError::NotStarted(_) | ChatError::NoAnswer { .. } => TemplateError::Unavailable(error),
            other => TemplateError::Refused(other),
        })?;
        Ok(if marked { ProtectedText::read(&text) } else { ProtectedText { text, cuts: Vec::new() } })
    }
}

fn unusable(error: ChatError) -> TemplateError {
    TemplateError::Unusable(match error {
        ChatError::Broken(reason) => format!("does not compile: {reason}"),
        other => format!("cannot be used: {other}"),
    })
}

fn source(model: &LlamaModel, name: Option<&str>) -> Option<String> {
    model.chat_template(name).ok()?.to_string().ok()
}

/// The source of the template for conversations with tools, if it differs from the default one.
fn source_for_tools(model: &LlamaModel) -> Option<String> {
    let own = source(model, Some("tool_use"))?;
    (Some(&own) != source(model, None).as_ref()).then_some(own)
}
