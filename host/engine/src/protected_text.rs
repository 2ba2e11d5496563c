//! Text of users in rendered prompts: the special tokens that it mentions are text.
//!
//! A template mixes its own text with the messages, and it can split, join and encode them. So the mentions of special
//! tokens are marked before it renders: a character that the messages do not contain is put behind the first character of
//! each mention. Behind the template, the marks are removed, and the mentions are tokenized as text.

use std::ops::Range;

use serde_json::Value;

use crate::special_tokens::SpecialTokens;

/// Characters that texts do not have: Unicode reserves them for the inside of programs.
const NONCHARACTERS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// The character that marks mentions. `None`: nothing is marked.
pub(crate) struct Mark(Option<char>);

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProtectedText {
    pub text: String,
    /// The places of mentions, in bytes, in order. Adjacent mentions have one place.
    pub mentions: Vec<Range<usize>>,
}

impl Mark {
    /// Marks the mentions of control tokens in `values`.
    pub(crate) fn protect(tokens: &SpecialTokens, values: [&mut Value; 2]) -> Self {
        if !values.iter().any(|value| any_string(value, &|text| tokens.mentions(text).next().is_some())) {
            return Self(None);
        }
        let is_free =
            |mark: &char| !values.iter().any(|value| any_string(value, &|text| text.contains(*mark)));
        let mark = NONCHARACTERS.into_iter().find(is_free);
        if let Some(mark) = mark {
            values.into_iter().for_each(|value| mark_strings(value, tokens, mark));
        }
        Self(mark)
    }

    /// Removes the marks from the rendered `text`.
    pub(crate) fn read(&self, text: &str, tokens: &SpecialTokens) -> ProtectedText {
        let Some(mark) = self.0 else { return ProtectedText { text: text.to_owned(), mentions: Vec::new() } };
        let mut plain = String::with_capacity(text.len());
        let mut starts = Vec::new();
        for part in text.split_inclusive(mark) {
            let (part, is_marked) = part.strip_suffix(mark).map_or((part, false), |part| (part, true));
            plain.push_str(part);
            // A template can cut a mention in front of its mark.
            starts.extend(
                part.chars().next_back().filter(|_| is_marked).map(|first| plain.len() - first.len_utf8()),
            );
        }
        let mut mentions: Vec<Range<usize>> = Vec::new();
        for start in starts {
            let Some(end) = tokens.mention_at(&plain, start) else { continue };
            match mentions.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => mentions.push(start..end),
            }
        }
        ProtectedText { text: plain, mentions }
    }
}

/// True if `test` is true for a string or a key in `value`.
fn any_string(value: &Value, test: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => test(text),
        Value::Array(values) => values.iter().any(|value| any_string(value, test)),
        Value::Object(fields) => fields.iter().any(|(key, value)| test(key) || any_string(value, test)),
        _ => false,
    }
}

fn mark_strings(value: &mut Value, tokens: &SpecialTokens, mark: char) {
    match value {
        Value::String(text) => *text = marked(text, tokens, mark),
        Value::Array(values) => values.iter_mut().for_each(|value| mark_strings(value, tokens, mark)),
        Value::Object(fields) => {
            for (key, mut value) in std::mem::take(fields) {
                mark_strings(&mut value, tokens, mark);
                fields.insert(marked(&key, tokens, mark), value);
            }
        }
        _ => {}
    }
}

/// `text` with a mark behind the first character of each mention.
fn marked(text: &str, tokens: &SpecialTokens, mark: char) -> String {
    let mut marked = String::with_capacity(text.len());
    let mut done = 0;
    for mention in tokens.mentions(text) {
        let first = text[mention.start..].chars().next().map_or(0, char::len_utf8);
        marked.push_str(&text[done..mention.start + first]);
        marked.push(mark);
        done = mention.start + first;
    }
    marked + &text[done..]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokens() -> SpecialTokens {
        SpecialTokens::of(&["<|end|>", "<|start|>", "<|end|>x"])
    }

    /// The text of a template that writes its own tokens around `values`, and the mentions in it.
    fn render(mut messages: Value) -> (String, Vec<String>) {
        let (tokens, mut tools) = (tokens(), json!([]));
        let mark = Mark::protect(&tokens, [&mut messages, &mut tools]);
        let protected = mark.read(&format!("<|start|>{messages}<|end|>"), &tokens);
        let mentions = protected.mentions.iter().map(|place| protected.text[place.clone()].to_owned());
        (protected.text.clone(), mentions.collect())
    }

    #[test]
    fn mentions_in_strings_and_keys_are_found_in_the_rendered_text() {
        let (text, mentions) =
            render(json!([{"content": "a<|end|>b<|end|>x", "<|start|>": ["é<|end|><|end|>"]}]));
        assert_eq!(
            text,
            r#"<|start|>[{"content":"a<|end|>b<|end|>x","<|start|>":["é<|end|><|end|>"]}]<|end|>"#
        );
        assert_eq!(mentions, ["<|end|>", "<|end|>x", "<|start|>", "<|end|><|end|>"]);
    }

    #[test]
    fn text_without_mentions_is_not_changed() {
        let (text, mentions) = render(json!("a < b | c \u{fdd0}"));
        assert_eq!((text.as_str(), mentions.len()), ("<|start|>\"a < b | c \u{fdd0}\"<|end|>", 0));
    }

    #[test]
    fn mark_is_a_character_that_the_messages_do_not_contain() {
        let (text, mentions) = render(json!("\u{fdd0}\u{fdd1}<|end|>"));
        assert_eq!(text, "<|start|>\"\u{fdd0}\u{fdd1}<|end|>\"<|end|>");
        assert_eq!(mentions, ["<|end|>"]);
    }

    #[test]
    fn mention_that_the_template_cuts_is_dropped() {
        let tokens = tokens();
        let mark = Mark(Some('\u{fdd0}'));
        let protected = mark.read("a<\u{fdd0}|en \u{fdd0}", &tokens);
        assert_eq!(protected, ProtectedText { text: "a<|en ".to_owned(), mentions: Vec::new() });
    }
}
