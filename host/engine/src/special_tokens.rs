//! Finds special tokens in texts.
//!
//! llama.cpp first splits a text at its special tokens. The time grows with the square of their number
//! (`tokenizer_st_partition` in `llama-vocab.cpp`). A text with very many special tokens would occupy a text
//! thread for minutes.

use aho_corasick::{AhoCorasick, MatchKind};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token_type::LlamaTokenAttr;

use crate::text::TextError;

/// The maximum number of special tokens in a text. llama.cpp splits such a text in a second or two.
const MAX_SPECIAL_TOKENS: usize = 1 << 15;

/// Finds a model's special tokens in texts.
pub(crate) struct SpecialTokens(Option<AhoCorasick>);

impl SpecialTokens {
    /// The special tokens of `model`: control tokens, and tokens that its authors added.
    pub(crate) fn for_model(model: &LlamaModel) -> Self {
        let vocab = model.vocab();
        let special_attributes =
            LlamaTokenAttr::Control | LlamaTokenAttr::UserDefined | LlamaTokenAttr::Unknown;
        let special = vocab.tokens().filter(|token| vocab.attr(*token).intersects(special_attributes));
        let texts = special.filter_map(|token| vocab.text(token)).filter(|text| !text.is_empty());
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts.map(|text| text.to_bytes()));
        Self(finder.ok())
    }

    /// Rejects a text with too many special tokens.
    pub(crate) fn check(&self, text: &str) -> Result<(), TextError> {
        let max = MAX_SPECIAL_TOKENS;
        // A special token has at least one byte.
        let Some(finder) = self.0.as_ref().filter(|_| text.len() > max) else { return Ok(()) };
        if finder.find_iter(text).nth(max).is_some() {
            Err(TextError::TooManySpecialTokens { max })
        } else {
            Ok(())
        }
    }
}
