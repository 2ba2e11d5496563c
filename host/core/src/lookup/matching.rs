//! The length of matches.

use crate::tokens::TokenId;

/// The maximum length of a match in tokens. Longer matches count as this long.
pub(super) const MAX_MATCH_TOKENS: usize = 64;

/// The number of equal tokens at the ends of `a` and `b`.
pub(super) fn common_end(a: &[TokenId], b: &[TokenId]) -> usize {
    let pairs = a.iter().rev().zip(b.iter().rev());
    pairs.take(MAX_MATCH_TOKENS).take_while(|(x, y)| x == y).count()
}
