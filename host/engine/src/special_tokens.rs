//! Finds special tokens in texts.
//!
//! llama.cpp first splits a text at its special tokens. The time grows with the square of their number
//! (`tokenizer_st_partition` in `llama-vocab.cpp`). A text with very many special tokens would occupy a text
//! thread for minutes.

use aho_corasick::{AhoCorasick, MatchKind};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token_type::{LlamaTokenAttr, LlamaTokenAttrs};

use crate::text::TextError;

/// The maximum number of special tokens in a text. llama.cpp splits such a text in a second or two.
const MAX_SPECIAL_TOKENS: usize = 1 << 15;

/// Finds a model's special tokens in texts.
pub(crate) struct SpecialTokens {
    /// Tokens at which llama.cpp splits texts.
    splitting: Option<AhoCorasick>,
    /// Tokens that structure prompts. Texts of users can only mention them.
    control: Option<AhoCorasick>,
    control_texts: Vec<String>,
}

impl SpecialTokens {
    /// The special tokens of `model`: control tokens, and tokens that its authors added.
    pub(crate) fn for_model(model: &LlamaModel) -> Self {
        let splitting = LlamaTokenAttr::Control | LlamaTokenAttr::UserDefined | LlamaTokenAttr::Unknown;
        let splitting = texts(model, |token| token.intersects(splitting));
        let mut control = texts(model, |token| token.contains(LlamaTokenAttr::Control));
        // llama.cpp makes ordinary added tokens of the tokens that structure prompts of gpt-oss.
        let added = texts(model, |token| token.contains(LlamaTokenAttr::UserDefined));
        control.extend(added.into_iter().filter(|text| text.starts_with("<|") && text.ends_with("|>")));
        Self { splitting: build(&splitting), control: build(&control), control_texts: control }
    }

    /// The control tokens `texts`.
    #[cfg(test)]
    pub(crate) fn of(texts: &[&str]) -> Self {
        let control_texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Self { splitting: None, control: build(&control_texts), control_texts }
    }

    /// The places in `text` where mentions of control tokens start, in bytes. The inside of a token, as in `|end|`, is a
    /// mention if it is the complete text.
    pub(crate) fn mentions<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        let complete =
            self.control.iter().flat_map(move |finder| finder.find_iter(text)).map(|found| found.start());
        let is_inside = text.len() > 1
            && text.starts_with(|first: char| first.is_ascii_punctuation())
            && self.control_texts.iter().any(|token| token.len() > text.len() && token.contains(text));
        is_inside.then_some(0).into_iter().chain(complete)
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

/// The texts of the tokens of `model` whose attributes are `wanted`.
fn texts(model: &LlamaModel, wanted: impl Fn(LlamaTokenAttrs) -> bool) -> Vec<String> {
    let vocab = model.vocab();
    let tokens = vocab.tokens().filter(|token| wanted(vocab.attr(*token)));
    let texts = tokens.filter_map(|token| vocab.text(token)).filter(|text| !text.is_empty());
    texts.map(|text| String::from_utf8_lossy(text.to_bytes()).into_owned()).collect()
}

fn build(texts: &[String]) -> Option<AhoCorasick> {
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts).ok()
}
