//! Sampling settings, validated once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tokens::TokenId;

/// The maximum number of biased tokens. Each costs time for every token that is sampled.
pub const MAX_LOGIT_BIASES: usize = 1024;
/// The maximum number of alternatives per log-probability.
pub const MAX_TOP_LOGPROBS: u8 = 20;

/// A lower temperature is greedy sampling.
const MIN_TEMPERATURE: f32 = 1e-6;

/// Sampling settings before their validation by [`Sampling::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingSpec {
    /// The divisor of the logits; 0 selects greedy sampling, as do temperatures below 1e-6.
    pub temperature: f32,
    /// Keeps the `top_k` most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the smallest set of most probable tokens whose probabilities add up to `top_p`; at least one token.
    pub top_p: f32,
    /// Drops tokens that are less probable than `min_p` times the most probable one.
    pub min_p: f32,
    /// Divides positive logits, and multiplies negative ones, of tokens that occur in the prompt or the output.
    pub repeat_penalty: f32,
    /// Subtracted once from the logit of each generated token.
    pub presence_penalty: f32,
    /// Subtracted from the logit of each generated token, once per occurrence.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// The seed of the Gumbel noise.
    pub seed: u64,
    /// True if the host chose the seed because the client sent none. A text server then chooses its own.
    #[serde(skip)]
    pub seed_is_random: bool,
    /// `Some(n)`: reports log-probabilities, with the `n` most probable alternatives.
    pub logprobs: Option<u8>,
}

impl Default for SamplingSpec {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            seed_is_random: false,
            logprobs: None,
        }
    }
}

/// A sampling setting is outside its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{parameter} must be {expected}, got {got}")]
pub struct InvalidSampling {
    /// The name of the setting, as in [`SamplingSpec`].
    pub parameter: &'static str,
    /// The allowed range in words.
    pub expected: &'static str,
    /// The refused value.
    pub got: f32,
}

/// Valid sampling settings; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sampling(Arc<SamplingSpec>);

impl Sampling {
    /// Validates `spec`.
    ///
    /// # Errors
    ///
    /// [`InvalidSampling`] names the first setting that is out of range.
    pub fn new(mut spec: SamplingSpec) -> Result<Self, InvalidSampling> {
        let checks = [
            ("temperature", spec.temperature, 0.0..=100.0, "between 0 and 100"),
            ("top_p", spec.top_p, 0.0..=1.0, "between 0 and 1"),
            ("min_p", spec.min_p, 0.0..=1.0, "between 0 and 1"),
            ("repeat_penalty", spec.repeat_penalty, 0.01..=100.0, "between 0.01 and 100"),
            ("presence_penalty", spec.presence_penalty, -2.0..=2.0, "between -2 and 2"),
            ("frequency_penalty", spec.frequency_penalty, -2.0..=2.0, "between -2 and 2"),
        ];
        for (parameter, got, range, expected) in checks {
            if !range.contains(&got) {
                return Err(InvalidSampling { parameter, expected, got });
            }
        }
        if let Some((_, got)) = spec.logit_bias.iter().find(|(_, bias)| !(-100.0..=100.0).contains(bias)) {
            return Err(InvalidSampling {
                parameter: "logit_bias",
                expected: "between -100 and 100",
                got: *got,
            });
        }
        if spec.logit_bias.len() > MAX_LOGIT_BIASES {
            return Err(InvalidSampling {
                parameter: "logit_bias",
                expected: "a list of at most 1024 tokens",
                got: spec.logit_bias.len() as f32,
            });
        }
        if let Some(n) = spec.logprobs.filter(|n| *n > MAX_TOP_LOGPROBS) {
            return Err(InvalidSampling {
                parameter: "top_logprobs",
                expected: "between 0 and 20",
                got: f32::from(n),
            });
        }
        // Logits that are divided by such numbers can overflow, and noise cannot change their order.
        if spec.temperature < MIN_TEMPERATURE {
            spec.temperature = 0.0;
        }
        Ok(Self(Arc::new(spec)))
    }

    /// True when the temperature is 0: sampling then chooses the largest logit.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.0.temperature == 0.0
    }

    /// True when logits depend on earlier tokens.
    #[must_use]
    pub fn has_penalties(&self) -> bool {
        self.0.repeat_penalty != 1.0 || self.0.presence_penalty != 0.0 || self.0.frequency_penalty != 0.0
    }
}

impl std::ops::Deref for Sampling {
    type Target = SamplingSpec;

    fn deref(&self) -> &SamplingSpec {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_the_setting_and_its_range() {
        let spec = SamplingSpec { top_p: 1.5, ..SamplingSpec::default() };
        let error = Sampling::new(spec).unwrap_err().to_string();
        assert_eq!(error, "top_p must be between 0 and 1, got 1.5");
    }

    #[test]
    fn sampling_refuses_many_biases() {
        let biases = |count: u32| (0..count).map(|token| (token, 1.0)).collect();
        let sampling =
            |count| Sampling::new(SamplingSpec { logit_bias: biases(count), ..SamplingSpec::default() });
        assert!(sampling(1024).is_ok());
        let error = sampling(1025).unwrap_err().to_string();
        assert_eq!(error, "logit_bias must be a list of at most 1024 tokens, got 1025");
    }

    #[test]
    fn tiny_temperature_is_greedy() {
        for temperature in [0.0, 1e-40, 1e-10] {
            let spec = SamplingSpec { temperature, ..SamplingSpec::default() };
            assert!(Sampling::new(spec).unwrap().is_greedy(), "{temperature}");
        }
    }

    #[test]
    fn sampling_refuses_nan() {
        let spec = SamplingSpec { temperature: f32::NAN, ..SamplingSpec::default() };
        assert_eq!(Sampling::new(spec).unwrap_err().parameter, "temperature");
    }
}
