//! Drafting without a model: a text often repeats the tokens that followed the same tokens earlier.
//!
//! Sources: prompt lookup decoding (Saxena 2023); SuffixDecoding (Oliaro et al., arXiv:2411.04975), also for the memory of
//! earlier requests.
//!
//! Invariant: `index` maps each run of `min_match_tokens` tokens to the positions in `tokens` where the run ends, in
//! rising order.

mod matching;
mod memory;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::api_key::KeyName;
use crate::backend::{Backend, DrafterSource};
use crate::error::BackendError;
use crate::lookup::matching::common_end;
use crate::lookup::memory::{Memory, RememberedText};
use crate::session::{Device, DraftCost, Drafter, PreparedRequest};
use crate::tokens::{Proposal, TokenId};

/// The maximum number of earlier matches that are compared, the latest first.
const MAX_CANDIDATES: usize = 64;

/// A drafter that copies from the prompt, the output and earlier requests.
pub struct Lookup {
    name: String,
    min_match_tokens: usize,
    memory: Memory,
    is_shared: bool,
}

impl Default for Lookup {
    fn default() -> Self {
        Self::new("lookup", Self::DEFAULT_MIN_MATCH_TOKENS).with_memory(Self::DEFAULT_MEMORY_TOKENS, false)
    }
}

impl Lookup {
    /// The default of [`Lookup::new`]'s `min_match_tokens`.
    pub const DEFAULT_MIN_MATCH_TOKENS: u32 = 2;

    /// The default of `tw.lookup`'s `memory_tokens`.
    pub const DEFAULT_MEMORY_TOKENS: usize = 256 << 10;

    /// A drafter that proposes when the last `min_match_tokens` tokens (at least 1) occurred earlier. It remembers no
    /// earlier requests.
    #[must_use]
    pub fn new(name: &str, min_match_tokens: u32) -> Self {
        Self {
            name: name.to_owned(),
            min_match_tokens: min_match_tokens.max(1) as usize,
            memory: Memory::new(0),
            is_shared: false,
        }
    }

    /// The same drafter, which remembers up to `max_tokens` tokens of earlier requests. Only requests with the same API
    /// key see them, unless `is_shared`.
    #[must_use]
    pub fn with_memory(self, max_tokens: usize, is_shared: bool) -> Self {
        Self { memory: Memory::new(max_tokens), is_shared, ..self }
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
        let owner = request.request.owner.clone().filter(|_| !self.is_shared);
        Ok(Box::new(LookupDrafter {
            name: self.name.clone(),
            text,
            prompt_tokens: request.prompt.len(),
            remembered: self.memory.texts(owner.as_ref()),
            memory: self.memory.clone(),
            owner,
        }))
    }
}

struct LookupDrafter {
    name: String,
    text: IndexedTokens,
    prompt_tokens: usize,
    /// The texts of earlier requests.
    remembered: Vec<Arc<RememberedText>>,
    memory: Memory,
    owner: Option<KeyName>,
}

impl LookupDrafter {
    /// The tokens after the longest earlier match of the text's end: in the text itself, or in an earlier request.
    fn continuation(&self, max: usize, min_probability: f32) -> Vec<Proposal> {
        let own = self.text.longest_match();
        let own_length = own.map_or(self.text.min_match_tokens - 1, |(_, length)| length);
        let texts = self.remembered.iter();
        let matches = texts.filter_map(|text| Some((text, text.longest_match(&self.text.tokens)?)));
        // Among matches of equal length, the latest request counts, and the text itself before all others.
        let best =
            matches.max_by_key(|(_, (_, length))| *length).filter(|(_, (_, length))| *length > own_length);
        match (best, own) {
            (Some((text, (start, length))), _) => {
                let tokens = text.tokens()[start..].iter().copied();
                limited(tokens.take(max), length, min_probability)
            }
            (None, Some((start, length))) => {
                limited(self.text.tokens_from(start).take(max), length, min_probability)
            }
            (None, None) => Vec::new(),
        }
    }
}

/// A finished request becomes a text of the memory, also if it was cancelled.
impl Drop for LookupDrafter {
    fn drop(&mut self) {
        self.memory.add(self.owner.take(), std::mem::take(&mut self.text.tokens));
    }
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
        Ok(self.continuation(max as usize, min_probability))
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

    /// The tokens from position `start` on. After the end of the text, they begin again: such a text repeats itself.
    fn tokens_from(&self, start: usize) -> impl Iterator<Item = TokenId> {
        self.tokens[start..].iter().copied().cycle()
    }

    /// The end and the length of the longest earlier match of the text's end. Among matches of equal length, the latest
    /// one counts.
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
        common_end(&self.tokens[..a], &self.tokens[..b])
    }
}

/// Proposals of `tokens` after a match of `match_tokens` tokens, up to the first one that is too improbable.
fn limited(
    tokens: impl Iterator<Item = TokenId>,
    match_tokens: usize,
    min_probability: f32,
) -> Vec<Proposal> {
    let proposals = tokens.enumerate();
    let proposals =
        proposals.map(|(offset, token)| Proposal { token, probability: confidence(match_tokens + offset) });
    proposals.take_while(|proposal| proposal.probability >= min_probability).collect()
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

    /// A drafter that has remembered the texts of `memory`, after `text`.
    fn drafter(memory: &[&[TokenId]], text: &[TokenId], min_match_tokens: usize) -> LookupDrafter {
        let remembering = Memory::new(1000);
        memory.iter().for_each(|text| remembering.add(None, text.to_vec()));
        let mut indexed = IndexedTokens::new(min_match_tokens);
        indexed.extend(text);
        LookupDrafter {
            name: String::new(),
            text: indexed,
            prompt_tokens: 0,
            remembered: remembering.texts(None),
            memory: remembering,
            owner: None,
        }
    }

    fn tokens_of(proposals: &[Proposal]) -> Vec<TokenId> {
        proposals.iter().map(|proposal| proposal.token).collect()
    }

    fn proposed(text: &[TokenId], min_match_tokens: usize, max: usize) -> Vec<TokenId> {
        tokens_of(&drafter(&[], text, min_match_tokens).continuation(max, 0.0))
    }

    #[test]
    fn lookup_copies_from_earlier_requests_if_they_match_longer() {
        let memory: [&[TokenId]; 2] = [&[1, 2, 3, 4, 5, 6], &[0, 1, 2, 3, 4, 7, 8]];
        let proposed = |text: &[TokenId]| tokens_of(&drafter(&memory, text, 2).continuation(2, 0.0));
        assert_eq!(proposed(&[9, 1, 2, 3, 4]), [7, 8], "the latest request");
        assert_eq!(proposed(&[9, 3, 4, 20, 3, 4]), [20, 3], "a match of two tokens in the text itself");
        assert_eq!(proposed(&[9, 3, 4, 20, 1, 2, 3, 4]), [7, 8]);
        assert!(proposed(&[9, 9, 3, 4]).is_empty(), "too short for another request");
    }

    #[tokio::test]
    async fn memory_is_separated_by_api_key() {
        let request = |name: Option<&str>| {
            let owner = name.map(|name| name.parse().unwrap());
            let request = Arc::new(crate::Request { owner, ..crate::Request::default() });
            PreparedRequest { prompt: [9, 1, 2, 3, 4].into(), ..crate::testing::prepare(request) }
        };
        for (is_shared, seen) in [(false, [0, 0, 1]), (true, [1, 1, 1])] {
            let lookup = Lookup::new("lookup", 2).with_memory(100, is_shared);
            let mut drafter = lookup.open_drafter(&request(Some("alice"))).await.unwrap();
            drafter.propose(&[5, 6], 4, 0.0).await.unwrap();
            drop(drafter);
            for (name, expected) in [None, Some("bob"), Some("alice")].into_iter().zip(seen) {
                let mut drafter = lookup.open_drafter(&request(name)).await.unwrap();
                let proposals = drafter.propose(&[], 1, 0.0).await.unwrap();
                assert_eq!(proposals.len(), expected, "{name:?}, shared: {is_shared}");
            }
        }
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
        assert!(text.longest_match().is_none());
        text.extend(&[6, 1, 2]);
        assert_eq!(text.longest_match(), Some((2, 2)));
    }

    #[test]
    fn confidence_rises_with_the_length_of_the_match() {
        assert!(confidence(2) < 0.7 && confidence(16) > 0.9);
    }
}
