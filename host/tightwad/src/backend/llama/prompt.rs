//! From a request to tokens and a constraint.

use serde_json::{Value, json};
use tightwad_engine::{ChatTemplate, Constraint, TemplateError, TokenId, TopLevelGrammar, Weights};

use crate::backend::BackendError;
use crate::types::{Format, Message, Prompt, Request, Tool, ToolChoice};

/// What a session is opened with.
pub(in crate::backend) struct Prepared {
    pub prompt: Vec<TokenId>,
    pub text: String,
    pub constraint: Option<Constraint>,
}

/// Renders and tokenizes the prompt and compiles the output's form.
pub(in crate::backend) fn prepare(
    weights: &Weights,
    template: &Result<ChatTemplate, TemplateError>,
    request: &Request,
) -> Result<Prepared, BackendError> {
    let (prompt, text) = match &request.prompt {
        Prompt::Text(text) => (weights.tokenize(text, true), text.clone()),
        Prompt::Chat(messages) => {
            let template = template.as_ref().map_err(|error| invalid("messages", error))?;
            let text = render(template, messages, request)?;
            (weights.tokenize_rendered(&text), text)
        }
    };
    let constraint = match grammar(request)? {
        Some((grammar, parameter)) => {
            Some(weights.constraint(grammar).map_err(|error| invalid(parameter, error))?)
        }
        None => None,
    };
    Ok(Prepared { prompt, text, constraint })
}

/// True when the output must have some form.
pub(in crate::backend) fn is_constrained(request: &Request) -> bool {
    let called = !matches!(request.tool_choice, ToolChoice::Auto | ToolChoice::None);
    !matches!(request.format, Format::Text) || (called && !request.tools.is_empty())
}

fn render(template: &ChatTemplate, messages: &[Message], request: &Request) -> Result<String, BackendError> {
    let shown = !request.tools.is_empty() && request.tool_choice != ToolChoice::None;
    if shown && !template.knows_tools() {
        return Err(invalid("tools", "this model's chat template does not know tools"));
    }
    let messages = Value::Array(messages.iter().map(|message| Value::Object(message.0.clone())).collect());
    let tools = shown.then(|| request.tools.iter().map(|tool| tool.definition.clone()).collect());
    template.render(&messages, tools.as_ref()).map_err(|error| invalid("messages", error))
}

/// The grammar of the output, and the request's field that asks for it.
fn grammar(request: &Request) -> Result<Option<(TopLevelGrammar, &'static str)>, BackendError> {
    let called: Vec<&Tool> = match &request.tool_choice {
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
    if !called.is_empty() {
        return Ok(Some((tool_call(&called), "tools")));
    }
    Ok(match &request.format {
        Format::Text => None,
        Format::JsonObject => {
            Some((TopLevelGrammar::from_json_schema(json!({"type": "object"})), "response_format"))
        }
        Format::JsonSchema(schema) => {
            Some((TopLevelGrammar::from_json_schema(schema.clone()), "response_format"))
        }
        Format::Grammar(text) => Some((TopLevelGrammar::from_lark(text.clone()), "grammar")),
    })
}

/// One call, in the form that Hermes and Qwen templates teach.
fn tool_call(tools: &[&Tool]) -> TopLevelGrammar {
    let one = |tool: &&Tool| {
        json!({
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": tool.parameters},
            "required": ["name", "arguments"],
            "additionalProperties": false,
        })
    };
    let schema = json!({"anyOf": tools.iter().map(one).collect::<Vec<_>>()});
    TopLevelGrammar::from_lark(format!(
        "start: \"<tool_call>\\n\" call \"\\n</tool_call>\"\ncall: %json {schema}\n"
    ))
}

fn invalid(parameter: &'static str, message: impl ToString) -> BackendError {
    BackendError::Invalid { message: message.to_string(), parameter: Some(parameter), code: None }
}
