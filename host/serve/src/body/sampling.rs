//! Sampling settings with OpenAI's defaults.

use serde_json::Value;
use tightwad_core::{MAX_TOP_LOGPROBS, Sampling, SamplingSpec, TokenId, random_bytes};
use tightwad_net::http::ApiError;

use crate::body::fields::RequestBody;
use crate::endpoint::Endpoint;

/// The sampling settings of each choice. Each choice has the next seed.
pub(crate) fn samplings(
    body: &RequestBody,
    endpoint: Endpoint,
    count: usize,
) -> Result<Vec<Sampling>, ApiError> {
    let default = SamplingSpec::default();
    let spec = SamplingSpec {
        temperature: body.temperature.unwrap_or(1.0),
        top_k: body.top_k.unwrap_or(0),
        top_p: body.top_p.unwrap_or(1.0),
        min_p: body.min_p.unwrap_or(0.0),
        repeat_penalty: body.repeat_penalty.or(body.repetition_penalty).unwrap_or(default.repeat_penalty),
        presence_penalty: body.presence_penalty.unwrap_or(0.0),
        frequency_penalty: body.frequency_penalty.unwrap_or(0.0),
        logit_bias: logit_biases(body)?,
        // Without a seed, every request gets a random one.
        seed: body.seed.map_or_else(|| u64::from_ne_bytes(random_bytes()), i64::cast_unsigned),
        seed_is_random: body.seed.is_none(),
        logprobs: logprob_count(body, endpoint)?,
    };
    let seeds = (0..count as u64).map(|index| spec.seed.wrapping_add(index));
    let sampling = |seed| Sampling::new(SamplingSpec { seed, ..spec.clone() });
    seeds
        .map(|seed| {
            sampling(seed).map_err(|error| ApiError::invalid(Some(error.parameter), error.to_string()))
        })
        .collect()
}

fn logit_biases(body: &RequestBody) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let entry = |(key, bias): (&String, &f32)| {
        // "01" and "+1" would be further names of token 1.
        let token = key.parse::<TokenId>().ok().filter(|token| token.to_string() == *key);
        let token = token.ok_or_else(|| {
            let message = format!("'logit_bias' has token ids as keys, not '{key}'");
            ApiError::invalid(Some("logit_bias"), message)
        });
        token.map(|token| (token, *bias))
    };
    body.logit_bias.iter().flatten().map(entry).collect()
}

/// The number of alternatives per log-probability. A chat request has `logprobs: true` and `top_logprobs`; a
/// completion has `logprobs` as a number.
fn logprob_count(body: &RequestBody, endpoint: Endpoint) -> Result<Option<u8>, ApiError> {
    let invalid = |message: &str| Err(ApiError::invalid(Some("logprobs"), message));
    match (endpoint, &body.logprobs) {
        (Endpoint::Chat, Some(Value::Bool(true))) => Ok(Some(body.top_logprobs.unwrap_or(0))),
        (Endpoint::Chat, None | Some(Value::Null | Value::Bool(false))) => match body.top_logprobs {
            Some(n) if n > 0 => invalid("'top_logprobs' needs 'logprobs': true"),
            _ => Ok(None),
        },
        (Endpoint::Chat, Some(_)) => invalid("'logprobs' is true or false here"),
        (Endpoint::Completion, None | Some(Value::Null)) => Ok(None),
        (Endpoint::Completion, Some(value)) => match value.as_u64() {
            Some(n) if n <= u64::from(MAX_TOP_LOGPROBS) => Ok(u8::try_from(n).ok()),
            _ => invalid("'logprobs' is a number from 0 to 20 here"),
        },
    }
}
