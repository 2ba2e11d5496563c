//! Sampling settings, with OpenAI's defaults.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use serde_json::Value;
use tightwad_core::{Sampling, SamplingSpec, TokenId};
use tightwad_net::http::ApiError;

use crate::body::fields::Body;
use crate::body::shape::Shape;

/// One sampling a choice: the same but for the seed, which counts up.
pub(crate) fn samplings(body: &Body, shape: Shape, count: usize) -> Result<Vec<Sampling>, ApiError> {
    let default = SamplingSpec::default();
    let spec = SamplingSpec {
        temperature: body.temperature.unwrap_or(1.0),
        top_k: body.top_k.unwrap_or(0),
        top_p: body.top_p.unwrap_or(1.0),
        min_p: body.min_p.unwrap_or(0.0),
        repeat_penalty: body.repeat_penalty.unwrap_or(default.repeat_penalty),
        presence_penalty: body.presence_penalty.unwrap_or(0.0),
        frequency_penalty: body.frequency_penalty.unwrap_or(0.0),
        logit_bias: biases(body)?,
        // Without a seed every request is another throw.
        seed: body.seed.map_or_else(|| RandomState::new().hash_one(0_u8), i64::cast_unsigned),
        logprobs: wanted_logprobs(body, shape)?,
    };
    let seeds = (0..count as u64).map(|index| spec.seed.wrapping_add(index));
    let one = |seed| Sampling::new(SamplingSpec { seed, ..spec.clone() });
    seeds
        .map(|seed| one(seed).map_err(|error| ApiError::invalid(Some(error.parameter), error.to_string())))
        .collect()
}

fn biases(body: &Body) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let entry = |(token, bias): (&String, &f32)| {
        let token = token.parse::<TokenId>().map_err(|_| {
            let message = format!("'logit_bias' has token ids as keys, not '{token}'");
            ApiError::invalid(Some("logit_bias"), message)
        });
        token.map(|token| (token, *bias))
    };
    body.logit_bias.iter().flatten().map(entry).collect()
}

/// Chat says `logprobs: true` and `top_logprobs: n`, completions say `logprobs: n`.
fn wanted_logprobs(body: &Body, shape: Shape) -> Result<Option<u8>, ApiError> {
    let wrong = |message: &str| Err(ApiError::invalid(Some("logprobs"), message));
    match (shape, &body.logprobs) {
        (Shape::Chat, Some(Value::Bool(true))) => Ok(Some(body.top_logprobs.unwrap_or(0))),
        (Shape::Chat, None | Some(Value::Null | Value::Bool(false))) => match body.top_logprobs {
            Some(n) if n > 0 => wrong("'top_logprobs' needs 'logprobs': true"),
            _ => Ok(None),
        },
        (Shape::Chat, Some(_)) => wrong("'logprobs' is true or false here"),
        (Shape::Completion, None | Some(Value::Null)) => Ok(None),
        (Shape::Completion, Some(value)) => match value.as_u64() {
            Some(n) if n <= 20 => Ok(u8::try_from(n).ok()),
            _ => wrong("'logprobs' is a number from 0 to 20 here"),
        },
    }
}
