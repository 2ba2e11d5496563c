//! Limits on the rows of one sequence in one pass.

use tightwad_core::TokenId;

/// The maximum number of pending tokens that a pass evaluates together with the row of the next token.
pub(crate) const MAX_PENDING_ROWS: usize = 8;
/// The maximum number of text tokens in one pass, so that the pass stays short.
const MAX_SCORED_TOKENS_PER_PASS: usize = 31;

/// The tokens that the next pass evaluates after the pending token. The last token of `text` needs no row.
pub(crate) fn score_chunk(text: &[TokenId], scored: usize) -> &[TokenId] {
    let end = (scored + MAX_SCORED_TOKENS_PER_PASS).min(text.len().saturating_sub(1));
    text.get(scored..end).unwrap_or_default()
}
