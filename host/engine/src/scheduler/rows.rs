//! The rows of a forward pass, and limits on their number.

use tightwad_core::TokenId;

/// The maximum number of rows of one forward pass.
pub(crate) const MAX_ROWS: usize = 512;
/// The maximum number of pending tokens that a pass evaluates together with the row of the next token.
pub(crate) const MAX_PENDING_ROWS: usize = 8;
/// The maximum number of text tokens in one pass, so that the pass stays short.
const MAX_SCORED_TOKENS_PER_PASS: usize = 31;

/// One row of a forward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub slot: usize,
    pub position: usize,
    pub token: TokenId,
    pub logits: bool,
}

/// The tokens that the next pass evaluates after the pending token. The last token of `text` needs no row.
pub(crate) fn score_chunk(text: &[TokenId], scored: usize) -> &[TokenId] {
    let end = (scored + MAX_SCORED_TOKENS_PER_PASS).min(text.len().saturating_sub(1));
    text.get(scored..end).unwrap_or_default()
}
