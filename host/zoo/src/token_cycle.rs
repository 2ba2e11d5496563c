//! The tokens of the constructed model.
//!
//! Ordinary tokens follow each other on a cycle that visits each of them once. A draft either equals the next token, or
//! it is the next token of another damaged token. So drafts also reach each ordinary token exactly once.

use crate::tensor::Noise;

/// The number of control tokens, which are the first tokens of SmolLM2's vocabulary.
const CONTROL_TOKENS: u32 = 17;
/// The number of successive tokens that have the requested share of damaged ones.
const WINDOW_TOKENS: usize = 100;

/// The functions that [`crate::Kind::Constructed`] computes. Both depend on the last token only.
#[derive(Debug, Clone)]
pub struct TokenCycle {
    /// The token after each ordinary token.
    next: Vec<u32>,
    /// The draft after each ordinary token.
    drafts: Vec<u32>,
}

impl TokenCycle {
    /// The functions for a vocabulary of `vocabulary` tokens, at least 34. Drafts are wrong after `damage_percent` of
    /// the tokens. The cycle consists of windows of 100 tokens. Each complete window has exactly that number of tokens
    /// with wrong drafts, in random order.
    #[must_use]
    pub fn new(vocabulary: u32, damage_percent: u8) -> Self {
        let mut noise = Noise::new(7);
        let mut cycle: Vec<u32> = (CONTROL_TOKENS..vocabulary).collect();
        shuffle(&mut cycle, &mut noise);
        let mut next = vec![0; cycle.len()];
        for (place, token) in cycle.iter().enumerate() {
            next[index(*token)] = cycle[(place + 1) % cycle.len()];
        }
        let mut damaged = Vec::new();
        for window in cycle.chunks(WINDOW_TOKENS) {
            let mut ranks: Vec<u32> = (0..WINDOW_TOKENS as u32).collect();
            shuffle(&mut ranks, &mut noise);
            let ranked = window.iter().zip(ranks);
            damaged.extend(
                ranked.filter(|(_, rank)| *rank < u32::from(damage_percent)).map(|(token, _)| *token),
            );
        }
        let mut drafts = next.clone();
        for (place, token) in damaged.iter().enumerate() {
            drafts[index(*token)] = next[index(damaged[(place + 1) % damaged.len()])];
        }
        Self { next, drafts }
    }

    /// The token after `token`: never a control token, and never `token` itself.
    #[must_use]
    pub fn next(&self, token: u32) -> u32 {
        self.next[index(token)]
    }

    /// The token that the MTP block drafts after `token`.
    #[must_use]
    pub fn draft(&self, token: u32) -> u32 {
        self.drafts[index(token)]
    }

    /// The number of tokens of the vocabulary.
    pub(crate) fn vocabulary(&self) -> u32 {
        self.next.len() as u32 + CONTROL_TOKENS
    }
}

/// The number of the ordinary token whose successors `token` has. A control token shares those of an ordinary one.
pub(crate) fn index(token: u32) -> usize {
    token.checked_sub(CONTROL_TOKENS).unwrap_or(token) as usize
}

fn shuffle(values: &mut [u32], noise: &mut Noise) {
    for place in (1..values.len()).rev() {
        values.swap(place, (noise.next() % (place as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: u32 = 49_152;
    const ORDINARY_TOKENS: u32 = VOCABULARY - CONTROL_TOKENS;

    #[test]
    fn cycle_visits_each_ordinary_token_once() {
        let cycle = TokenCycle::new(VOCABULARY, 0);
        let mut token = 1;
        let mut visited = vec![false; VOCABULARY as usize];
        for _ in 0..ORDINARY_TOKENS {
            token = cycle.next(token);
            assert!(token >= CONTROL_TOKENS && !visited[token as usize], "{token}");
            visited[token as usize] = true;
        }
    }

    #[test]
    fn share_of_wrong_drafts_is_known_and_draws_each_token_once() {
        for percent in [0, 1, 30, 50, 100] {
            let cycle = TokenCycle::new(VOCABULARY, percent);
            let ordinary = CONTROL_TOKENS..VOCABULARY;
            let wrong = ordinary.clone().filter(|token| cycle.draft(*token) != cycle.next(*token)).count();
            let expected = ORDINARY_TOKENS as usize * usize::from(percent) / 100;
            assert!(wrong.abs_diff(expected) <= WINDOW_TOKENS / 2, "{percent} %: {wrong}");
            let mut drafts: Vec<u32> = ordinary.clone().map(|token| cycle.draft(token)).collect();
            drafts.sort_unstable();
            assert!(drafts.into_iter().eq(ordinary), "{percent} %");
        }
    }
}
