//! How much of a sequence one pass evaluates.

use tightwad_core::TokenId;

/// Pending tokens that are evaluated together with the row that is wanted.
pub(crate) const TAIL: usize = 8;
/// Tokens of the text in one pass, so that a tick stays short.
const CHUNK: usize = 31;

/// The tokens after the pending one that the next pass evaluates; the text's last one needs none.
pub(crate) fn chunk(text: &[TokenId], scored: usize) -> &[TokenId] {
    let end = (scored + CHUNK).min(text.len().saturating_sub(1));
    text.get(scored..end).unwrap_or_default()
}
