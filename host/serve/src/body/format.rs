//! The response format and the tools of a request.

use serde::Deserialize;
use serde_json::{Map, Value};
use tightwad_core::{Format, Tool, ToolChoice};
use tightwad_net::http::ApiError;

/// The maximum length of a function's name in bytes.
const MAX_TOOL_NAME_BYTES: usize = 256;

/// `response_format`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: JsonSchema },
}

#[derive(Debug, Deserialize)]
pub(crate) struct JsonSchema {
    schema: Option<Value>,
}

impl From<ResponseFormat> for Format {
    fn from(format: ResponseFormat) -> Self {
        match format {
            ResponseFormat::Text => Self::Text,
            ResponseFormat::JsonObject => Self::JsonObject,
            ResponseFormat::JsonSchema { json_schema } => {
                json_schema.schema.map_or(Self::JsonObject, |schema| Self::JsonSchema(schema.into()))
            }
        }
    }
}

/// One entry of `tools`.
#[derive(Debug, Deserialize)]
pub(crate) struct ToolBody {
    r#type: String,
    function: FunctionBody,
}

#[derive(Debug, Deserialize)]
struct FunctionBody {
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
}

/// `tool_choice`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected 'none', 'auto', 'required' or an object that names a function")]
pub(crate) enum ToolChoiceBody {
    Mode(String),
    Named { function: FunctionName },
}

#[derive(Debug, Deserialize)]
pub(crate) struct FunctionName {
    name: String,
}

/// Checks the tools and the tool choice.
pub(crate) fn tools(
    bodies: Option<Vec<ToolBody>>,
    choice: Option<ToolChoiceBody>,
) -> Result<(Vec<Tool>, ToolChoice), ApiError> {
    let bodies = bodies.unwrap_or_default();
    if let Some(tool) = bodies.iter().find(|tool| tool.r#type != "function") {
        let message = format!("'tools' supports functions only, not '{}'", tool.r#type);
        return Err(ApiError::invalid(Some("tools"), message));
    }
    if bodies.iter().any(|tool| tool.function.name.len() > MAX_TOOL_NAME_BYTES) {
        let message = format!("'tools' has a name of more than {MAX_TOOL_NAME_BYTES} bytes");
        return Err(ApiError::invalid(Some("tools"), message));
    }
    let tools: Vec<Tool> = bodies.into_iter().map(tool).collect();
    let choice = match choice {
        None => ToolChoice::Auto,
        Some(ToolChoiceBody::Named { function }) => ToolChoice::Named(function.name),
        Some(ToolChoiceBody::Mode(mode)) => match mode.as_str() {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            other => {
                let message = format!("'tool_choice' is none, auto or required, not '{other}'");
                return Err(ApiError::invalid(Some("tool_choice"), message));
            }
        },
    };
    if tools.is_empty() && matches!(choice, ToolChoice::Required | ToolChoice::Named(_)) {
        return Err(ApiError::invalid(
            Some("tool_choice"),
            "'tool_choice' requires a tool, but there are no 'tools'",
        ));
    }
    if let ToolChoice::Named(name) = &choice
        && !tools.iter().any(|tool| tool.name == *name)
    {
        let message = format!("'tool_choice' names '{name}', which is not among the 'tools'");
        return Err(ApiError::invalid(Some("tool_choice"), message));
    }
    Ok((tools, choice))
}

/// Builds OpenAI's object. The parameters can be large, so they are moved.
fn tool(body: ToolBody) -> Tool {
    let FunctionBody { name, description, parameters } = body.function;
    let mut function = Map::new();
    function.insert("name".to_owned(), name.as_str().into());
    if let Some(description) = description {
        function.insert("description".to_owned(), description.into());
    }
    if let Some(parameters) = parameters {
        function.insert("parameters".to_owned(), parameters);
    }
    let fields = [("type", "function".into()), ("function", Value::Object(function))];
    let definition = fields.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
    Tool { name, definition: Value::Object(definition) }
}
