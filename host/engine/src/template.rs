//! Chat templates from the GGUF, rendered as the model's authors wrote them: Jinja with Python's
//! string and list methods, as Hugging Face's `apply_chat_template` runs them.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value};

use crate::text::TextThread;
use crate::weights::Weights;

/// A template that is missing, broken, or refuses the conversation.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TemplateError {
    /// The model has none: it is a base model.
    #[error("this model has no chat template: use /v1/completions, or a model tuned for chat")]
    Missing,
    /// The template refused or failed.
    #[error("the model's chat template refuses these messages: {0}")]
    Refused(String),
    /// The text became longer than it may be; its bytes until then.
    #[error("the messages are too long: their text has more than {0} bytes")]
    Long(usize),
}

/// A model's chat template, compiled.
pub struct ChatTemplate {
    environment: Environment<'static>,
    edges: (String, String),
    tools: bool,
}

const NAME: &str = "chat";
/// Most instructions of one rendering. A model file is a download: its template must end.
const MAX_INSTRUCTIONS: u64 = 50_000_000;

impl ChatTemplate {
    /// Compiles the template of `weights`.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Missing`] for base models, [`TemplateError::Refused`] for templates that
    /// do not compile.
    pub fn of(weights: &Weights) -> Result<Self, TemplateError> {
        let source = weights.model.chat_template(None).map_err(|_| TemplateError::Missing)?;
        let source = source.to_string().map_err(|error| TemplateError::Refused(error.to_string()))?;
        Self::new(source, weights.edges())
    }

    fn new(source: String, edges: (String, String)) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(refused)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(MAX_INSTRUCTIONS));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        let tools = source.contains("tools");
        environment.add_template_owned(NAME, source).map_err(refused)?;
        Ok(Self { environment, edges, tools })
    }

    /// True when the template mentions tools.
    #[must_use]
    pub fn knows_tools(&self) -> bool {
        self.tools
    }

    /// Renders `messages` (OpenAI objects) and `tools`, ending where the assistant begins.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Refused`] with the template's own words, [`TemplateError::Long`] for a text of more than
    /// `most_bytes`.
    pub fn render(
        &self,
        _: &TextThread,
        messages: &serde_json::Value,
        tools: Option<&serde_json::Value>,
        most_bytes: usize,
    ) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(refused)?;
        let context = minijinja::context! {
            messages => Value::from(Serde(messages)),
            tools => tools.map(|tools| Value::from(Serde(tools))),
            add_generation_prompt => true,
            bos_token => self.edges.0.as_str(),
            eos_token => self.edges.1.as_str(),
        };
        let mut text = Bounded { bytes: Vec::new(), most: most_bytes };
        let rendered = template.render_captured_to(context, &mut text).map(drop);
        if text.bytes.len() > most_bytes {
            return Err(TemplateError::Long(text.bytes.len()));
        }
        rendered.map_err(refused)?;
        String::from_utf8(text.bytes).map_err(|error| TemplateError::Refused(error.to_string()))
    }
}

/// Takes a text up to the write that makes it longer than `most` bytes.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(more);
        if self.bytes.len() > self.most {
            return Err(std::io::Error::other("the text is too long"));
        }
        Ok(more.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn refused(error: Error) -> TemplateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::Refused(format!("it does not end within {MAX_INSTRUCTIONS} instructions"));
    }
    let text = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    TemplateError::Refused(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source.to_owned(), (String::new(), String::new())).unwrap()
    }

    fn render(template: &ChatTemplate, messages: &serde_json::Value) -> Result<String, TemplateError> {
        template.render(&TextThread::for_tests(), messages, None, 1000)
    }

    #[test]
    fn python_methods_and_raise_exception_work() {
        let source = "{% for m in messages %}{% if m.role not in ['user'] %}{{ raise_exception('only users') }}{% endif %}{{ m.content.strip() }}{% endfor %}";
        let template = template(source);
        let good = serde_json::json!([{"role": "user", "content": " hi "}]);
        assert_eq!(render(&template, &good).unwrap(), "hi");
        let bad = serde_json::json!([{"role": "robot", "content": ""}]);
        assert!(render(&template, &bad).unwrap_err().to_string().contains("only users"));
    }

    #[test]
    fn a_template_that_does_not_end_and_a_text_that_is_too_long_are_refused() {
        let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        let error = render(&template(endless), &serde_json::json!([])).unwrap_err().to_string();
        assert!(error.contains("does not end"), "{error}");
        let long = serde_json::json!([{"role": "user", "content": "x".repeat(1001)}]);
        let error = render(&template("{{ messages[0].content }}"), &long);
        assert!(matches!(error, Err(TemplateError::Long(1001))), "{error:?}");
    }
}
