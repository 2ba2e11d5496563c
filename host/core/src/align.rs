//! Drafted text as tokens of the target.

use crate::error::BackendError;
use crate::session::Tokenizer;
use crate::tokens::TokenId;

/// Committed tokens before the draft that are tokenized with it: what a tokenizer makes of a text
/// depends on what stands before it.
const TAIL: usize = 4;

/// The tokens that continue `output` by `drafted`. The last one is left out unless the draft is
/// `complete`: where a text was cut, its last token may be the beginning of a longer one.
pub async fn aligned(
    tokenizer: &dyn Tokenizer,
    output: &[TokenId],
    drafted: &str,
    complete: bool,
) -> Result<Vec<TokenId>, BackendError> {
    let tail = &output[output.len().saturating_sub(TAIL)..];
    let before = String::from_utf8(tokenizer.detokenize(tail).await?).unwrap_or_default();
    let together = tokenizer.tokenize(&format!("{before}{drafted}")).await?;
    let mut tokens = match together.strip_prefix(tail) {
        Some(rest) if !before.is_empty() => rest.to_vec(),
        // The target cut the text elsewhere: what follows is tokenized by itself.
        _ => tokenizer.tokenize(drafted).await?,
    };
    if !complete {
        tokens.pop();
    }
    Ok(tokens)
}
