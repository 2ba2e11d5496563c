//! Drafting without a model: a text often repeats the tokens that followed the same tokens earlier.
//!
//! Sources: prompt lookup decoding (Saxena 2023); SuffixDecoding (Oliaro et al., arXiv:2411.04975).
//!
//! Invariant: `index` maps each run of `min_match_tokens` tokens to the positions in `tokens` where the run ends, in
//! rising order.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::backend::{Backend, DrafterSource};
use crate::error::BackendError;
use crate::session::{Device, DraftCost, Drafter, PreparedRequest};
use crate::tokens::{Proposal, TokenId};

/// The maximum number of earlier matches that are compared, the latest first.
const MAX_CANDIDATES: usize = 64;
/// The maximum length of a match in tokens. Longer matches count as this long.
const MAX_MATCH_TOKENS: usize = 64;

/// A drafter that copies from the prompt and the output.
pub struct Lookup {
    name: String,
    min_match_tokens: usize,
}

impl Lookup {
    /// A drafter that proposes when the last `min_match_tokens` tokens (at least 1) occurred earlier.
    #[must_use]
    pub fn new(name: &str, min_match_tokens: u32) -> Self {
        Self { name: name.to_owned(), min_match_tokens: min_match_tokens.max(1) as usize }
    }
}

impl Backend for Lookup {
    fn name(&self) -> &str {
        &self.name
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        Some(self)
    }
}

#[async_trait]
impl DrafterSource for Lookup {
    async fn open_drafter(&self, request: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        let mut text = IndexedTokens::new(self.min_match_tokens);
        text.extend(&request.prompt);
        let prompt_tokens = request.prompt.len();
        Ok(Box::new(LookupDrafter { name: self.name.clone(), text, prompt_tokens }))
    }
}

struct LookupDrafter {
    name: String,
    text: IndexedTokens,
    prompt_tokens: usize,
}

#[async_trait]
impl Drafter for LookupDrafter {
    fn name(&self) -> &str {
        &self.name
    }

    fn device(&self) -> Device {
        Device::None
    }

    fn expected_cost(&self) -> DraftCost {
        DraftCost::default()
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let known_output = &self.text.tokens[self.prompt_tokens..];
        let common = known_output.iter().zip(output).take_while(|(a, b)| a == b).count();
        self.text.truncate(self.prompt_tokens + common);
        self.text.extend(&output[common..]);
        Ok(self.text.continuation(max as usize, min_probability))
    }
}

/// The tokens of prompt and output, with an index of their short runs.
struct IndexedTokens {
    tokens: Vec<TokenId>,
    min_match_tokens: usize,
    index: HashMap<Box<[TokenId]>, Vec<usize>>,
}

impl IndexedTokens {
    fn new(min_match_tokens: usize) -> Self {
        Self { tokens: Vec::new(), min_match_tokens, index: HashMap::new() }
    }

    fn extend(&mut self, tokens: &[TokenId]) {
        for token in tokens {
            self.tokens.push(*token);
            let end = self.tokens.len();
            if let Some(start) = end.checked_sub(self.min_match_tokens) {
                self.index.entry(self.tokens[start..].into()).or_default().push(end);
            }
        }
    }

    fn truncate(&mut self, length: usize) {
        while self.tokens.len() > length {
            if let Some(start) = self.tokens.len().checked_sub(self.min_match_tokens)
                && let Some(ends) = self.index.get_mut(&self.tokens[start..])
            {
                ends.pop();
            }
            self.tokens.pop();
        }
    }

    /// Copies the tokens after the longest earlier match of the text's end. Among matches of equal length, the latest
    /// one counts.
    ///
    /// A copy that reaches the end of the text continues with its own first tokens: such a text repeats itself.
    fn continuation(&self, max: usize, min_probability: f32) -> Vec<Proposal> {
        let Some((start, match_tokens)) = self.longest_match() else { return Vec::new() };
        let mut proposals: Vec<Proposal> = Vec::new();
        for offset in 0..max {
            let probability = confidence(match_tokens + offset);
            let position = start + offset;
            let token = match self.tokens.get(position) {
                Some(token) => *token,
                None => proposals[position - self.tokens.len()].token,
            };
            if probability < min_probability {
                break;
            }
            proposals.push(Proposal { token, probability });
        }
        proposals
    }

    /// The end and the length of the longest earlier match.
    fn longest_match(&self) -> Option<(usize, usize)> {
        let end = self.tokens.len();
        let ends = self.index.get(&self.tokens[end.checked_sub(self.min_match_tokens)?..])?;
        let earlier = ends.iter().rev().filter(|position| **position < end).take(MAX_CANDIDATES);
        earlier
            .map(|position| (*position, self.common_length(*position, end)))
            .max_by_key(|(position, length)| (*length, *position))
    }

    /// The number of equal tokens directly before the positions `a` and `b`.
    fn common_length(&self, a: usize, b: usize) -> usize {
        let before = |end: usize| self.tokens[..end].iter().rev();
        before(a).zip(before(b)).take(MAX_MATCH_TOKENS).take_while(|(x, y)| x == y).count()
    }
}

/// The probability that the token after a match of `match_tokens` tokens is copied too.
///
/// The curve was fitted by eye to copied code and prose. In such texts, matches of three tokens are often accidental,
/// and matches of sixteen tokens rarely.
fn confidence(match_tokens: usize) -> f32 {
    1.0 - 0.9 / (1.0 + match_tokens as f32).powf(0.9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(text: &[TokenId], min_match_tokens: usize, max: usize) -> Vec<TokenId> {
        let mut indexed = IndexedTokens::new(min_match_tokens);
        indexed.extend(text);
        indexed.continuation(max, 0.0).iter().map(|proposal| proposal.token).collect()
    }

    #[test]
    fn lookup_copies_the_tokens_after_the_longest_match() {
        // 2 3 occurs twice. 1 2 3 occurs once, before 4.
        assert_eq!(proposed(&[1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 2, 2), [4, 9]);
    }

    #[test]
    fn lookup_continues_a_repeating_text() {
        assert_eq!(proposed(&[7, 8, 7, 8], 2, 5), [7, 8, 7, 8, 7]);
    }

    #[test]
    fn lookup_proposes_nothing_without_a_match() {
        assert!(proposed(&[1, 2, 3], 2, 4).is_empty());
        assert!(proposed(&[1], 2, 4).is_empty());
    }

    #[test]
    fn truncation_removes_index_entries() {
        let mut text = IndexedTokens::new(2);
        text.extend(&[1, 2, 3, 1, 2]);
        text.truncate(2);
        assert!(text.continuation(4, 0.0).is_empty());
        text.extend(&[6, 1, 2]);
        assert_eq!(text.continuation(1, 0.0)[0].token, 6);
    }

    #[test]
    fn confidence_rises_with_the_length_of_the_match() {
        assert!(confidence(2) < 0.7 && confidence(16) > 0.9);
    }
}
