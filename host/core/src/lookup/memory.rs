//! The texts of earlier requests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

use crate::api_key::KeyName;
use crate::lookup::matching::{MAX_MATCH_TOKENS, common_end};
use crate::sync;
use crate::tokens::TokenId;

/// The minimum length of a match in an earlier request. Among thousands of tokens, shorter ones are often accidental.
const MIN_MATCH_TOKENS: usize = 4;

/// The texts of earlier requests, by the API key of their client. Clones share the texts.
///
/// Invariant: `tokens` is the number of tokens of all texts.
#[derive(Clone)]
pub(super) struct Memory {
    max_tokens: usize,
    texts: Arc<Mutex<Texts>>,
}

#[derive(Default)]
struct Texts {
    /// The texts of each owner, the oldest first.
    by_owner: HashMap<Option<KeyName>, VecDeque<Arc<RememberedText>>>,
    /// The owner of each text, the oldest first.
    order: VecDeque<Option<KeyName>>,
    tokens: usize,
}

/// The prompt and the output of an earlier request.
pub(super) struct RememberedText {
    tokens: Vec<TokenId>,
    /// The positions of the text, sorted by the tokens before them, read backwards: a suffix array of the reversed text.
    /// The first search makes it.
    sorted: OnceLock<Vec<u32>>,
}

impl Memory {
    /// An empty memory for `max_tokens` tokens.
    pub(super) fn new(max_tokens: usize) -> Self {
        Self { max_tokens, texts: Arc::default() }
    }

    /// The texts of `owner`, the oldest first.
    pub(super) fn texts(&self, owner: Option<&KeyName>) -> Vec<Arc<RememberedText>> {
        let texts = sync::lock(&self.texts);
        texts.by_owner.get(&owner.cloned()).into_iter().flatten().cloned().collect()
    }

    /// Adds a text of `owner`. It replaces the texts that it continues. The oldest texts of all owners go when the memory
    /// is full. A text that is longer than the whole memory is not kept.
    pub(super) fn add(&self, owner: Option<KeyName>, tokens: Vec<TokenId>) {
        if tokens.len() > self.max_tokens || tokens.len() < MIN_MATCH_TOKENS {
            return;
        }
        let mut texts = sync::lock(&self.texts);
        texts.remove_beginnings(&owner, &tokens);
        texts.tokens += tokens.len();
        let text = Arc::new(RememberedText { tokens, sorted: OnceLock::new() });
        texts.by_owner.entry(owner.clone()).or_default().push_back(text);
        texts.order.push_back(owner);
        while texts.tokens > self.max_tokens && texts.remove_oldest() {}
    }
}

impl Texts {
    /// Removes the texts of `owner` that `tokens` begins with.
    fn remove_beginnings(&mut self, owner: &Option<KeyName>, tokens: &[TokenId]) {
        let Some(texts) = self.by_owner.get_mut(owner) else { return };
        let is_beginning = |text: &Arc<RememberedText>| tokens.starts_with(&text.tokens);
        let removed: Vec<bool> = texts.iter().map(is_beginning).collect();
        self.tokens -=
            texts.iter().filter(|text| is_beginning(text)).map(|text| text.tokens.len()).sum::<usize>();
        texts.retain(|text| !is_beginning(text));
        let mut removed = removed.into_iter();
        self.order.retain(|other| other != owner || !removed.next().unwrap_or(false));
    }

    fn remove_oldest(&mut self) -> bool {
        let Some(owner) = self.order.pop_front() else { return false };
        let Some(texts) = self.by_owner.get_mut(&owner) else { return false };
        self.tokens -= texts.pop_front().map_or(0, |text| text.tokens.len());
        if texts.is_empty() {
            self.by_owner.remove(&owner);
        }
        true
    }
}

impl RememberedText {
    /// All tokens.
    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// The end and the length of the longest match of the end of `text`; `None` if there is none of some tokens.
    pub(super) fn longest_match(&self, text: &[TokenId]) -> Option<(usize, usize)> {
        let before = |position: u32| &self.tokens[..position as usize];
        let sorted = self.sorted.get_or_init(|| self.sort());
        let place = sorted.partition_point(|position| backwards(before(*position)).lt(backwards(text)));
        // The longest match is a neighbour of the place that the text would have.
        let neighbours = [place.checked_sub(1), Some(place)].into_iter().flatten();
        let matches = neighbours.filter_map(|place| sorted.get(place)).map(|position| {
            let start = *position as usize;
            (start, common_end(before(*position), text))
        });
        matches.max_by_key(|(_, length)| *length).filter(|(_, length)| *length >= MIN_MATCH_TOKENS)
    }

    /// The positions that have a token before and after them, in the order of [`Self::sorted`].
    fn sort(&self) -> Vec<u32> {
        let mut positions: Vec<u32> = (1..self.tokens.len() as u32).collect();
        positions.sort_unstable_by(|a, b| {
            backwards(&self.tokens[..*a as usize]).cmp(backwards(&self.tokens[..*b as usize]))
        });
        positions
    }
}

/// The last tokens, backwards, as far as matches are compared.
fn backwards(tokens: &[TokenId]) -> impl Iterator<Item = &TokenId> {
    tokens.iter().rev().take(MAX_MATCH_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Option<KeyName> {
        Some(name.parse().unwrap())
    }

    fn lengths(memory: &Memory, owner: &Option<KeyName>) -> Vec<usize> {
        memory.texts(owner.as_ref()).iter().map(|text| text.tokens.len()).collect()
    }

    #[test]
    fn longest_match_is_found_in_any_order_of_tokens() {
        let text = |tokens: &[TokenId]| RememberedText { tokens: tokens.to_vec(), sorted: OnceLock::new() };
        let remembered = text(&[9, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 8]);
        assert_eq!(remembered.longest_match(&[0, 9, 1, 2, 3, 4]), Some((5, 5)));
        assert_eq!(remembered.longest_match(&[7, 1, 2, 3, 4]), Some((12, 5)));
        assert_eq!(remembered.longest_match(&[0, 0, 3, 4]), None);
        assert_eq!(remembered.longest_match(&[]), None);
        // Nothing follows the last token.
        assert_eq!(remembered.longest_match(&[1, 2, 3, 4, 8]), None);
    }

    #[test]
    fn text_replaces_the_texts_that_it_continues() {
        let memory = Memory::new(100);
        memory.add(None, vec![1; 4]);
        memory.add(key("a"), vec![1; 4]);
        memory.add(None, vec![2; 5]);
        memory.add(None, vec![1; 9]);
        assert_eq!((lengths(&memory, &None), lengths(&memory, &key("a"))), (vec![5, 9], vec![4]));
        assert_eq!(sync::lock(&memory.texts).tokens, 18);
        assert_eq!(sync::lock(&memory.texts).order.len(), 3);
    }

    #[test]
    fn oldest_texts_make_room() {
        let memory = Memory::new(20);
        for (owner, token) in [(key("a"), 1), (key("b"), 2), (key("a"), 3), (key("b"), 4)] {
            memory.add(owner, vec![token; 8]);
        }
        assert_eq!((lengths(&memory, &key("a")), lengths(&memory, &key("b"))), (vec![8], vec![8]));
        memory.add(key("c"), vec![5; 21]);
        assert!(lengths(&memory, &key("c")).is_empty());
        Memory::new(0).add(None, vec![1; 8]);
    }
}
