//! The JSON fields of a request body.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use tightwad_core::JsonSize;
use tightwad_net::http::ApiError;

use crate::body::format::{ResponseFormat, ToolBody, ToolChoiceBody};
use crate::body::numbers;

/// The supported fields of both endpoints. Other fields are ignored, as OpenAI's servers ignore unknown
/// fields.
#[derive(Debug, Deserialize)]
pub(crate) struct RequestBody {
    pub model: String,
    pub messages: Option<Vec<Map<String, Value>>>,
    pub prompt: Option<StringOrList>,
    pub suffix: Option<String>,
    pub echo: Option<bool>,
    #[serde(default, deserialize_with = "numbers::count_or_default")]
    pub max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "numbers::count_or_default")]
    pub max_completion_tokens: Option<u32>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    #[serde(default, deserialize_with = "numbers::count_or_default")]
    pub top_k: Option<u32>,
    pub min_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    #[serde(default, deserialize_with = "numbers::seed")]
    pub seed: Option<i64>,
    pub logit_bias: Option<BTreeMap<String, f32>>,
    pub logprobs: Option<Value>,
    #[serde(default, deserialize_with = "numbers::small_count")]
    pub top_logprobs: Option<u8>,
    #[serde(default, deserialize_with = "numbers::count")]
    pub n: Option<u32>,
    #[serde(default, deserialize_with = "numbers::count")]
    pub best_of: Option<u32>,
    pub stop: Option<StringOrList>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    pub response_format: Option<ResponseFormat>,
    pub grammar: Option<String>,
    pub guided_grammar: Option<String>,
    pub tools: Option<Vec<ToolBody>>,
    pub tool_choice: Option<ToolChoiceBody>,
    pub chat_template_kwargs: Option<Map<String, Value>>,
    pub enable_thinking: Option<bool>,
    pub reasoning_effort: Option<String>,
    pub add_generation_prompt: Option<bool>,
    pub continue_final_message: Option<ContinueBody>,
    /// The size of the JSON so far: strings of the body can contain further JSON.
    #[serde(skip)]
    pub size: JsonSize,
}

/// The maximum length of a model's name in bytes.
const MAX_MODEL_NAME_BYTES: usize = 256;
/// The byte order mark, which some clients put before the JSON.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One string or a list of strings.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of strings")]
pub(crate) enum StringOrList {
    One(String),
    Many(Vec<String>),
}

impl StringOrList {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// `continue_final_message`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected true, false, \"content\" or \"reasoning_content\"")]
pub(crate) enum ContinueBody {
    Switch(bool),
    Part(ContinuedPart),
}

/// The continued part of a message.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ContinuedPart {
    Content,
    ReasoningContent,
}

/// `stream_options`.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamOptions {
    pub include_usage: Option<bool>,
}

impl RequestBody {
    /// Parses the JSON, unless it has too many parts. An error names the field.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let mut size = JsonSize::default();
        size.add(bytes).map_err(|error| ApiError::invalid(None, error.to_string()))?;
        let body = Self { size, ..Self::parse_json(bytes)? };
        if body.model.len() > MAX_MODEL_NAME_BYTES {
            let message = format!("'model' has more than {MAX_MODEL_NAME_BYTES} bytes");
            return Err(ApiError::invalid(Some("model"), message));
        }
        Ok(body)
    }

    fn parse_json(bytes: &[u8]) -> Result<Self, ApiError> {
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
