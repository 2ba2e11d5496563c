//! Chat templates from the GGUF, rendered as the model's authors wrote them: Jinja with Python's
//! string and list methods, as Hugging Face's `apply_chat_template` runs them.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value};

use crate::Weights;

/// A template that is missing, broken, or refuses the conversation.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TemplateError {
    /// The model has none: it is a base model.
    #[error("this model has no chat template: use /v1/completions, or a model tuned for chat")]
    Missing,
    /// The template refused or failed.
    #[error("the model's chat template refuses these messages: {0}")]
    Refused(String),
}

/// A model's chat template, compiled.
pub struct ChatTemplate {
    environment: Environment<'static>,
    edges: (String, String),
    tools: bool,
}

const NAME: &str = "chat";

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
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(refused)?;
        environment.set_syntax(syntax);
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
    /// [`TemplateError::Refused`] with the template's own words.
    pub fn render(
        &self,
        messages: &serde_json::Value,
        tools: Option<&serde_json::Value>,
    ) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(refused)?;
        let context = minijinja::context! {
            messages => Value::from(Serde(messages)),
            tools => tools.map(|tools| Value::from(Serde(tools))),
            add_generation_prompt => true,
            bos_token => self.edges.0.as_str(),
            eos_token => self.edges.1.as_str(),
        };
        template.render(context).map_err(refused)
    }
}

fn refused(error: Error) -> TemplateError {
    let text = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    TemplateError::Refused(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_methods_and_raise_exception_work() {
        let source = "{% for m in messages %}{% if m.role not in ['user'] %}{{ raise_exception('only users') }}{% endif %}{{ m.content.strip() }}{% endfor %}";
        let template = ChatTemplate::new(source.to_owned(), (String::new(), String::new())).unwrap();
        let good = serde_json::json!([{"role": "user", "content": " hi "}]);
        assert_eq!(template.render(&good, None).unwrap(), "hi");
        let bad = serde_json::json!([{"role": "robot", "content": ""}]);
        assert!(template.render(&bad, None).unwrap_err().to_string().contains("only users"));
    }
}
