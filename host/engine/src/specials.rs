//! Special tokens that a text writes out.
//!
//! llama.cpp parts a text at its special tokens first, in a time that grows with the square of their number
//! (`tokenizer_st_partition` in its `llama-vocab.cpp`). A text with very many would keep a text thread for minutes.

use aho_corasick::{AhoCorasick, MatchKind};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token_type::LlamaTokenAttr;

use crate::text::TextError;

/// Most special tokens of a text. Parting it takes a second or two then.
const MAX_SPECIAL_TOKENS: usize = 1 << 15;

/// Finds a model's special tokens in texts.
pub(crate) struct Specials(Option<AhoCorasick>);

impl Specials {
    /// Those of `model`: control tokens, and those that its authors added.
    pub(crate) fn of(model: &LlamaModel) -> Self {
        let vocab = model.vocab();
        let parts = LlamaTokenAttr::Control | LlamaTokenAttr::UserDefined | LlamaTokenAttr::Unknown;
        let special = vocab.tokens().filter(|token| vocab.attr(*token).intersects(parts));
        let texts = special.filter_map(|token| vocab.text(token)).filter(|text| !text.is_empty());
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts.map(|text| text.to_bytes()));
        Self(finder.ok())
    }

    /// Refuses a text with too many of them.
    pub(crate) fn check(&self, text: &str) -> Result<(), TextError> {
        let most = MAX_SPECIAL_TOKENS;
        // Each takes a byte at least.
        let Some(finder) = self.0.as_ref().filter(|_| text.len() > most) else { return Ok(()) };
        if finder.find_iter(text).nth(most).is_some() { Err(TextError::Specials { most }) } else { Ok(()) }
    }
}
