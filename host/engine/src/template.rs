//! Chat templates of GGUF files: Jinja with Python's string and list methods, as in Hugging Face's
//! `apply_chat_template`.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value};
use tightwad_core::Message;

use crate::text::TextThread;
use crate::weights::Weights;

/// An error of a chat template.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TemplateError {
    /// The model has no chat template: it is a base model.
    #[error("this model has no chat template. Use /v1/completions, or a model that is tuned for chat")]
    Missing,
    /// The template does not compile.
    #[error(
        "this model's chat template does not compile: {0}. Use /v1/completions, or another file of the model"
    )]
    Broken(String),
    /// The template failed or rejected the messages.
    #[error("the model's chat template rejects these messages: {0}")]
    Refused(String),
    /// The rendered text is too long; it had this number of bytes when rendering stopped.
    #[error("the messages are too long: their text has more than {0} bytes")]
    TooLong(usize),
}

/// A model's compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_eos: (String, String),
    mentions_tools: bool,
}

const TEMPLATE_NAME: &str = "chat";
/// The maximum number of instructions per rendering. A downloaded template can loop forever.
const MAX_INSTRUCTIONS: u64 = 50_000_000;

impl ChatTemplate {
    /// Compiles the template of `weights`.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Missing`] for base models, [`TemplateError::Broken`] if the template does not compile.
    pub fn from_weights(weights: &Weights) -> Result<Self, TemplateError> {
        let source = weights.model.chat_template(None).map_err(|_| TemplateError::Missing)?;
        let source = source.to_string().map_err(|error| TemplateError::Broken(error.to_string()))?;
        Self::new(source, weights.bos_eos_text())
    }

    fn new(source: String, bos_eos: (String, String)) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(refused)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(MAX_INSTRUCTIONS));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        let mentions_tools = source.contains("tools");
        let compiled = environment.add_template_owned(TEMPLATE_NAME, source);
        compiled.map_err(|error| TemplateError::Broken(detail(&error)))?;
        Ok(Self { environment, bos_eos, mentions_tools })
    }

    /// True if the template mentions tools.
    #[must_use]
    pub fn supports_tools(&self) -> bool {
        self.mentions_tools
    }

    /// Renders `messages` and `tools` (OpenAI objects). The text ends where the assistant's answer begins.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Refused`] with the template's message, [`TemplateError::TooLong`] for a text of more
    /// than `max_bytes` bytes.
    pub fn render(
        &self,
        _: &TextThread,
        messages: &[Message],
        tools: Option<&[&serde_json::Value]>,
        max_bytes: usize,
    ) -> Result<String, TemplateError> {
        let template = self.environment.get_template(TEMPLATE_NAME).map_err(refused)?;
        let context = minijinja::context! {
            messages => Value::from(Serde(messages)),
            tools => tools.map(|tools| Value::from(Serde(tools))),
            add_generation_prompt => true,
            bos_token => self.bos_eos.0.as_str(),
            eos_token => self.bos_eos.1.as_str(),
        };
        let mut text = BoundedText { bytes: Vec::new(), max_bytes };
        let rendered = template.render_captured_to(context, &mut text).map(drop);
        if text.bytes.len() > max_bytes {
            return Err(TemplateError::TooLong(text.bytes.len()));
        }
        rendered.map_err(refused)?;
        String::from_utf8(text.bytes).map_err(|error| TemplateError::Refused(error.to_string()))
    }
}

/// A buffer that fails on the write that makes it longer than `max_bytes` bytes.
struct BoundedText {
    bytes: Vec<u8>,
    max_bytes: usize,
}

impl std::io::Write for BoundedText {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > self.max_bytes {
            return Err(std::io::Error::other("the text is too long"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn refused(error: Error) -> TemplateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::Refused(format!(
            "the template does not end within {MAX_INSTRUCTIONS} instructions"
        ));
    }
    TemplateError::Refused(detail(&error))
}

/// The reason, and the line of the template if it is known.
fn detail(error: &Error) -> String {
    let text = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    match error.line() {
        Some(line) if error.kind() == ErrorKind::SyntaxError => format!("{text} (line {line})"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source.to_owned(), (String::new(), String::new())).unwrap()
    }

    fn render(template: &ChatTemplate, messages: &serde_json::Value) -> Result<String, TemplateError> {
        let messages: Vec<Message> = serde_json::from_value(messages.clone()).unwrap();
        template.render(&TextThread::for_tests(), &messages, None, 1000)
    }

    #[test]
    fn template_supports_python_methods_and_raise_exception() {
        let source = "{% for m in messages %}{% if m.role not in ['user'] %}{{ raise_exception('only users') }}{% endif %}{{ m.content.strip() }}{% endfor %}";
        let template = template(source);
        let allowed = serde_json::json!([{"role": "user", "content": " hi "}]);
        assert_eq!(render(&template, &allowed).unwrap(), "hi");
        let forbidden = serde_json::json!([{"role": "robot", "content": ""}]);
        assert!(render(&template, &forbidden).unwrap_err().to_string().contains("only users"));
    }

    #[test]
    fn template_that_does_not_compile_is_told_apart_from_a_refusal() {
        let broken = ChatTemplate::new("a\n{% if %}".to_owned(), (String::new(), String::new()));
        let error = broken.map(drop).unwrap_err();
        assert!(matches!(&error, TemplateError::Broken(reason) if reason.contains("line 2")), "{error}");
    }

    #[test]
    fn endless_template_and_long_text_are_rejected() {
        let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        let error = render(&template(endless), &serde_json::json!([])).unwrap_err().to_string();
        assert!(error.contains("does not end"), "{error}");
        let long = serde_json::json!([{"role": "user", "content": "x".repeat(1001)}]);
        let error = render(&template("{{ messages[0].content }}"), &long);
        assert!(matches!(error, Err(TemplateError::TooLong(1001))), "{error:?}");
    }
}
