//! Counts the tokens of a sequence, for the penalties.
//!
//! Invariant: the counts cover the prompt and all tokens that were pushed and not popped.

use std::collections::HashMap;

use tightwad_core::{Sampling, TokenId};

/// The token counts of one sequence.
#[derive(Debug, Default, Clone)]
pub struct History {
    /// Occurrences in the prompt and in the output.
    counts: HashMap<TokenId, Count>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    prompt: u32,
    output: u32,
}

impl History {
    /// Counts the prompt's tokens.
    #[must_use]
    pub fn of_prompt(prompt: &[TokenId]) -> Self {
        let mut history = Self::default();
        for token in prompt {
            history.counts.entry(*token).or_default().prompt += 1;
        }
        history
    }

    /// Records a generated token.
    pub fn push(&mut self, token: TokenId) {
        self.counts.entry(token).or_default().output += 1;
    }

    /// Removes a generated token.
    pub fn pop(&mut self, token: TokenId) {
        if let Some(count) = self.counts.get_mut(&token) {
            count.output = count.output.saturating_sub(1);
        }
    }

    /// Applies the penalties of `sampling` to `logits`, in place.
    pub fn penalize(&self, sampling: &Sampling, logits: &mut [f32]) {
        for (token, count) in &self.counts {
            let Some(logit) = logits.get_mut(*token as usize) else {
                continue;
            };
            if count.prompt + count.output > 0 {
                let penalty = sampling.repeat_penalty;
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
            if count.output > 0 {
                *logit -= sampling.presence_penalty + sampling.frequency_penalty * count.output as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tightwad_core::SamplingSpec;

    use super::*;

    #[test]
    fn presence_and_frequency_count_output_only_and_pops_undo_pushes() {
        let spec = SamplingSpec { presence_penalty: 1.0, frequency_penalty: 0.5, ..SamplingSpec::default() };
        let sampling = Sampling::new(spec).unwrap();
        let mut history = History::of_prompt(&[0]);
        history.push(1);
        history.push(1);
        history.push(2);
        history.pop(2);
        let mut logits = vec![3.0, 3.0, 3.0];
        history.penalize(&sampling, &mut logits);
        assert_eq!(logits, vec![3.0, 1.0, 3.0]);
    }

    #[test]
    fn repeat_penalty_counts_the_prompt() {
        let spec = SamplingSpec { repeat_penalty: 2.0, ..SamplingSpec::default() };
        let mut logits = vec![3.0, -3.0, 3.0];
        History::of_prompt(&[0, 1]).penalize(&Sampling::new(spec).unwrap(), &mut logits);
        assert_eq!(logits, vec![1.5, -6.0, 3.0]);
    }
}
