//! Drafting without a model: the text so far often says what comes next (prompt lookup decoding,
//! Saxena 2023; SuffixDecoding, Oliaro et al., arXiv:2411.04975).
//!
//! Invariant: `index` lists, for every run of `min_match` tokens, where such runs end in `tokens`,
//! in rising order.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::backend::{Backend, DrafterSource};
use crate::error::BackendError;
use crate::session::{Drafter, Expected, Processor, Task};
use crate::tokens::{Proposal, TokenId};

/// Earlier places compared; the latest first.
const CANDIDATES: usize = 64;
/// Longest match that is measured.
const LONGEST: usize = 64;

/// A drafter that copies from the prompt and the output.
pub struct Lookup {
    name: String,
    min_match: usize,
}

impl Lookup {
    /// Proposes after `min_match` tokens (at least 1) that stood somewhere before.
    #[must_use]
    pub fn new(name: &str, min_match: u32) -> Self {
        Self { name: name.to_owned(), min_match: min_match.max(1) as usize }
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
    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        let mut text = Text::new(self.min_match);
        text.extend(&task.prompt);
        let prompt = task.prompt.len();
        Ok(Box::new(LookupDrafter { name: self.name.clone(), text, prompt }))
    }
}

struct LookupDrafter {
    name: String,
    text: Text,
    prompt: usize,
}

#[async_trait]
impl Drafter for LookupDrafter {
    fn name(&self) -> &str {
        &self.name
    }

    fn processor(&self) -> Processor {
        Processor::Nothing
    }

    fn expected(&self) -> Expected {
        Expected::default()
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let own = &self.text.tokens[self.prompt..];
        let common = own.iter().zip(output).take_while(|(a, b)| a == b).count();
        self.text.truncate(self.prompt + common);
        self.text.extend(&output[common..]);
        Ok(self.text.continuation(max as usize, min_probability))
    }
}

/// Tokens with an index of the places where each short run ended.
struct Text {
    tokens: Vec<TokenId>,
    min_match: usize,
    index: HashMap<Box<[TokenId]>, Vec<usize>>,
}

impl Text {
    fn new(min_match: usize) -> Self {
        Self { tokens: Vec::new(), min_match, index: HashMap::new() }
    }

    fn extend(&mut self, tokens: &[TokenId]) {
        for token in tokens {
            self.tokens.push(*token);
            let end = self.tokens.len();
            if let Some(start) = end.checked_sub(self.min_match) {
                self.index.entry(self.tokens[start..].into()).or_default().push(end);
            }
        }
    }

    fn truncate(&mut self, length: usize) {
        while self.tokens.len() > length {
            if let Some(start) = self.tokens.len().checked_sub(self.min_match)
                && let Some(ends) = self.index.get_mut(&self.tokens[start..])
            {
                ends.pop();
            }
            self.tokens.pop();
        }
    }

    /// Copies what followed the longest earlier match of the text's end, the latest of equals. Where
    /// the copy reaches the end of the text it goes on in itself: the text repeats.
    fn continuation(&self, max: usize, min_probability: f32) -> Vec<Proposal> {
        let Some((from, matched)) = self.longest_match() else { return Vec::new() };
        let mut proposals: Vec<Proposal> = Vec::new();
        for offset in 0..max {
            let probability = confidence(matched + offset);
            let at = from + offset;
            let token = match self.tokens.get(at) {
                Some(token) => *token,
                None => proposals[at - self.tokens.len()].token,
            };
            if probability < min_probability {
                break;
            }
            proposals.push(Proposal { token, probability });
        }
        proposals
    }

    /// Where the best earlier match ends, and its length.
    fn longest_match(&self) -> Option<(usize, usize)> {
        let end = self.tokens.len();
        let ends = self.index.get(&self.tokens[end.checked_sub(self.min_match)?..])?;
        let earlier = ends.iter().rev().filter(|place| **place < end).take(CANDIDATES);
        earlier
            .map(|place| (*place, self.common(*place, end)))
            .max_by_key(|(place, length)| (*length, *place))
    }

    /// How many tokens before `a` equal those before `b`.
    fn common(&self, a: usize, b: usize) -> usize {
        let before = |end: usize| self.tokens[..end].iter().rev();
        before(a).zip(before(b)).take(LONGEST).take_while(|(x, y)| x == y).count()
    }
}

/// How much a match of that many tokens says about the next: fitted by eye to copied code and
/// prose, where runs of three are often chance and runs of sixteen hardly ever.
fn confidence(matched: usize) -> f32 {
    1.0 - 0.9 / (1.0 + matched as f32).powf(0.9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(text: &[TokenId], min_match: usize, max: usize) -> Vec<TokenId> {
        let mut known = Text::new(min_match);
        known.extend(text);
        known.continuation(max, 0.0).iter().map(|proposal| proposal.token).collect()
    }

    #[test]
    fn copies_what_followed_the_longest_match() {
        // 2 3 stood twice; 1 2 3 once, followed by 4.
        assert_eq!(proposed(&[1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 2, 2), [4, 9]);
    }

    #[test]
    fn goes_on_in_itself_where_the_text_repeats() {
        assert_eq!(proposed(&[7, 8, 7, 8], 2, 5), [7, 8, 7, 8, 7]);
    }

    #[test]
    fn says_nothing_without_a_match() {
        assert!(proposed(&[1, 2, 3], 2, 4).is_empty());
        assert!(proposed(&[1], 2, 4).is_empty());
    }

    #[test]
    fn truncation_forgets() {
        let mut text = Text::new(2);
        text.extend(&[1, 2, 3, 1, 2]);
        text.truncate(2);
        assert!(text.continuation(4, 0.0).is_empty());
        text.extend(&[6, 1, 2]);
        assert_eq!(text.continuation(1, 0.0)[0].token, 6);
    }

    #[test]
    fn longer_matches_are_trusted_more() {
        assert!(confidence(2) < 0.7 && confidence(16) > 0.9);
    }
}
