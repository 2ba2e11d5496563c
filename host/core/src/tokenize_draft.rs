//! Tokenizes drafted text in the target's vocabulary.

use crate::error::BackendError;
use crate::session::Tokenizer;
use crate::tokens::TokenId;

/// Committed tokens that are tokenized together with the draft. The tokens of a text depend on the text before it.
const CONTEXT_TOKENS: usize = 4;

/// Returns the tokens of `drafted` after `output`. Drops the last token unless the draft is `complete`: a cut text can
/// end inside a longer token.
///
/// # Errors
///
/// Returns the error of `tokenizer`.
pub async fn tokenize_draft(
    tokenizer: &dyn Tokenizer,
    output: &[TokenId],
    drafted: &str,
    complete: bool,
) -> Result<Vec<TokenId>, BackendError> {
    let tail = &output[output.len().saturating_sub(CONTEXT_TOKENS)..];
    let before = String::from_utf8(tokenizer.detokenize(tail).await?).unwrap_or_default();
    let together = tokenizer.tokenize(&format!("{before}{drafted}")).await?;
    let mut tokens = match together.strip_prefix(tail) {
        Some(draft_tokens) if !before.is_empty() => draft_tokens.to_vec(),
        // There is no text before the draft, or the tokenizer merged the draft with that text.
        _ => tokenizer.tokenize(drafted).await?,
    };
    if !complete {
        tokens.pop();
    }
    Ok(tokens)
}
