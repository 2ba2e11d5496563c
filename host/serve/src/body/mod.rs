//! From a request's body to what backends understand.

pub(crate) mod format;
pub(crate) mod messages;
pub(crate) mod parsed;
pub(crate) mod sampling;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tightwad_net::http::ApiError;

/// The fields of both endpoints that mean something here; others are ignored, as OpenAI's own
/// servers do with fields from the future.
#[derive(Debug, Deserialize)]
pub(crate) struct Body {
    pub(crate) model: String,
    messages: Option<Vec<serde_json::Map<String, Value>>>,
    prompt: Option<Text>,
    suffix: Option<String>,
    echo: Option<bool>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    #[serde(alias = "repetition_penalty")]
    repeat_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<i64>,
    logit_bias: Option<BTreeMap<String, f32>>,
    logprobs: Option<Value>,
    top_logprobs: Option<u8>,
    n: Option<u32>,
    best_of: Option<u32>,
    stop: Option<Text>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    response_format: Option<format::ResponseFormat>,
    #[serde(alias = "guided_grammar")]
    grammar: Option<String>,
    tools: Option<Vec<format::ToolBody>>,
    tool_choice: Option<format::ToolChoiceBody>,
}

/// One string or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of strings")]
enum Text {
    One(String),
    Many(Vec<String>),
}

impl Text {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Body {
    /// Reads the JSON; an error names the field.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let body = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner();
            if inner.is_data() && path != "." {
                ApiError::invalid(Some(&path), format!("'{path}': {inner}"))
            } else if inner.is_data() {
                ApiError::invalid(None, format!("the body is not a request: {inner}"))
            } else {
                ApiError::invalid(None, format!("the body is not valid JSON: {inner}"))
            }
        })?;
        json.end()
            .map_err(|error| ApiError::invalid(None, format!("the body is not valid JSON: {error}")))?;
        Ok(body)
    }
}

#[cfg(test)]
mod tests;
