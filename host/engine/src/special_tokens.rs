//! Finds special tokens in texts.
//!
//! llama.cpp first splits a text at its special tokens. The time grows with the square of their number
//! (`tokenizer_st_partition` in `llama-vocab.cpp`). A text with very many special tokens would occupy a text
//! thread for minutes.

use std::ops::Range;

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind, StartKind};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token_type::{LlamaTokenAttr, LlamaTokenAttrs};

use crate::text::TextError;

/// The maximum number of special tokens in a text. llama.cpp splits such a text in a second or two.
const MAX_SPECIAL_TOKENS: usize = 1 << 15;

/// Finds a model's special tokens in texts.
pub(crate) struct SpecialTokens {
    /// Tokens at which llama.cpp splits texts.
    splitting: Option<AhoCorasick>,
    /// Tokens that control the model. Texts of users can only mention them.
    control: Option<AhoCorasick>,
}

impl SpecialTokens {
    /// The special tokens of `model`: control tokens, and tokens that its authors added.
    pub(crate) fn for_model(model: &LlamaModel) -> Self {
        let splitting = LlamaTokenAttr::Control | LlamaTokenAttr::UserDefined | LlamaTokenAttr::Unknown;
        Self {
            splitting: finder(model, |token| token.intersects(splitting)),
            control: finder(model, |token| token.contains(LlamaTokenAttr::Control)),
        }
    }

    /// The control tokens `texts`.
    #[cfg(test)]
    pub(crate) fn of(texts: &[&str]) -> Self {
        Self { splitting: None, control: build(texts) }
    }

    /// The places in `text` that mention control tokens, in bytes.
    pub(crate) fn mentions<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        self.control.iter().flat_map(move |finder| finder.find_iter(text)).map(|found| found.range())
    }

    /// The end of the mention of a control token that starts at the byte `start` of `text`.
    pub(crate) fn mention_at(&self, text: &str, start: usize) -> Option<usize> {
        let found =
            self.control.as_ref()?.find(Input::new(text).span(start..text.len()).anchored(Anchored::Yes));
        found.map(|found| found.end())
    }

    /// Rejects a text with too many special tokens.
    pub(crate) fn check(&self, text: &str) -> Result<(), TextError> {
        let max = MAX_SPECIAL_TOKENS;
        // A special token has at least one byte.
        let Some(finder) = self.splitting.as_ref().filter(|_| text.len() > max) else { return Ok(()) };
        if finder.find_iter(text).nth(max).is_some() {
            Err(TextError::TooManySpecialTokens { max })
        } else {
            Ok(())
        }
    }
}

/// Finds the tokens of `model` whose attributes are `wanted`.
fn finder(model: &LlamaModel, wanted: impl Fn(LlamaTokenAttrs) -> bool) -> Option<AhoCorasick> {
    let vocab = model.vocab();
    let tokens = vocab.tokens().filter(|token| wanted(vocab.attr(*token)));
    let texts = tokens.filter_map(|token| vocab.text(token)).filter(|text| !text.is_empty());
    build(texts.map(|text| text.to_bytes()))
}

fn build(texts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Option<AhoCorasick> {
    let mut builder = AhoCorasick::builder();
    builder.match_kind(MatchKind::LeftmostLongest).start_kind(StartKind::Both);
    builder.build(texts).ok()
}
