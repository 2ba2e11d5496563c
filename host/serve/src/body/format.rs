//! The response format and the tools of a request.

use serde::Deserialize;
use serde_json::{Value, json};
use tightwad_core::{Format, Tool, ToolChoice};
use tightwad_net::http::ApiError;

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
                json_schema.schema.map_or(Self::JsonObject, Self::JsonSchema)
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

#[derive(Debug, Deserialize, serde::Serialize)]
struct FunctionBody {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
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

fn tool(body: ToolBody) -> Tool {
    let parameters = body.function.parameters.clone().unwrap_or_else(|| json!({"type": "object"}));
    Tool {
        name: body.function.name.clone(),
        definition: json!({"type": "function", "function": body.function}),
        parameters,
    }
}
