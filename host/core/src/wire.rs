//! The wire format of requests between machines.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::facts::is_default;
use crate::request::{ChatOptions, Format, Prompt, Request, Tool, ToolChoice};
use crate::sampling::{InvalidSampling, Sampling, SamplingSpec};

/// A request in the messages between machines. The wire format has no stop strings, because the client's host turns
/// tokens into text and stops there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WireRequest {
    /// Identifies the request in the logs of both machines.
    pub id: String,
    /// The conversation or text to continue.
    pub prompt: Prompt,
    /// How the chat template renders the conversation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub chat: ChatOptions,
    /// The sampling settings. Settings with default values are left out.
    #[serde(default, serialize_with = "serialize_non_defaults", deserialize_with = "deserialize_finite")]
    pub sampling: SamplingSpec,
    /// The maximum number of generated tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// The format of the output.
    #[serde(default, skip_serializing_if = "is_default")]
    pub format: Format,
    /// The tools that the model may call.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tools: Arc<[Tool]>,
    /// The tool that the model must call, if any.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tool_choice: ToolChoice,
}

/// Serializes the settings that differ from the defaults.
fn serialize_non_defaults<S: serde::Serializer>(
    spec: &SamplingSpec,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // The conversion through text keeps 0.8 as 0.8. A direct conversion would widen the f32 to 0.800000011920929.
    let text = |spec: &SamplingSpec| serde_json::to_string(spec);
    let map = |spec: &SamplingSpec| text(spec).and_then(|text| serde_json::from_str::<Value>(&text));
    let map = |spec: &SamplingSpec| map(spec).map_err(serde::ser::Error::custom);
    let (mut own, default) = (map(spec)?, map(&SamplingSpec::default())?);
    if let Some(fields) = own.as_object_mut() {
        fields.retain(|key, value| default.get(key) != Some(value));
    }
    own.serialize(serializer)
}

/// Reads settings. A number such as `1e118` is infinite as `f32`, and could not be written again.
fn deserialize_finite<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SamplingSpec, D::Error> {
    let spec = SamplingSpec::deserialize(deserializer)?;
    let settings = [
        spec.temperature,
        spec.top_p,
        spec.min_p,
        spec.repeat_penalty,
        spec.presence_penalty,
        spec.frequency_penalty,
    ];
    let biases = spec.logit_bias.iter().map(|(_, bias)| *bias);
    if settings.into_iter().chain(biases).all(f32::is_finite) {
        Ok(spec)
    } else {
        Err(serde::de::Error::custom("a number of the sampling settings is too large"))
    }
}

impl From<&Request> for WireRequest {
    fn from(request: &Request) -> Self {
        Self {
            id: request.id.clone(),
            prompt: request.prompt.clone(),
            sampling: (*request.sampling).clone(),
            max_tokens: request.max_tokens,
            format: request.format.clone(),
            chat: request.chat.clone(),
            tools: request.tools.clone(),
            tool_choice: request.tool_choice.clone(),
        }
    }
}

impl WireRequest {
    /// `request` without its prompt, for a session that receives the prompt as tokens.
    #[must_use]
    pub fn without_prompt(request: &Request) -> Self {
        Self { prompt: Prompt::Text(Arc::default()), ..Self::from(request) }
    }
}

impl TryFrom<WireRequest> for Request {
    type Error = InvalidSampling;

    fn try_from(wire: WireRequest) -> Result<Self, InvalidSampling> {
        Ok(Self {
            id: wire.id,
            prompt: wire.prompt,
            sampling: Sampling::new(wire.sampling)?,
            max_tokens: wire.max_tokens,
            stop: Arc::default(),
            format: wire.format,
            chat: wire.chat,
            tools: wire.tools,
            tool_choice: wire.tool_choice,
            // A host keeps the memories of its clients' requests.
            owner: None,
            meter: Arc::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_request_leaves_out_default_settings() {
        let spec = SamplingSpec { temperature: 0.8, seed: 7, ..SamplingSpec::default() };
        let request = Request { sampling: Sampling::new(spec.clone()).unwrap(), ..Request::default() };
        let text = serde_json::to_string(&WireRequest::from(&request)).unwrap();
        assert_eq!(text, r#"{"id":"","prompt":{"text":""},"sampling":{"temperature":0.8,"seed":7}}"#);
        let back: WireRequest = serde_json::from_str(&text).unwrap();
        assert_eq!(*Request::try_from(back).unwrap().sampling, spec);
    }
}
