//! Text of users in rendered prompts: the special tokens that it mentions are text.
//!
//! A template mixes its own text with that of the client, and it can split, join and encode both. So the client's text is
//! marked before it is rendered: each mention of a special token gets a mark behind its first character. The rendered text
//! is cut at the marks. The tokenizer gets the parts one by one, and finds no special token across a cut.

use serde_json::Value;

use crate::special_tokens::SpecialTokens;

/// The mark. Unicode reserves this character for the inside of programs, so texts have no use for it.
const MARK: char = '\u{fdd0}';

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProtectedText {
    pub text: String,
    /// The places of cuts, in bytes, in order.
    pub cuts: Vec<usize>,
}

impl ProtectedText {
    /// Removes the marks from the rendered `text`.
    pub(crate) fn read(text: &str) -> Self {
        let mut plain = String::with_capacity(text.len());
        let mut cuts = Vec::new();
        for part in text.split(MARK) {
            cuts.push(plain.len());
            plain.push_str(part);
        }
        // The first part begins without a mark.
        cuts.remove(0);
        cuts.dedup();
        cuts.retain(|cut| (1..plain.len()).contains(cut));
        Self { text: plain, cuts }
    }
}

/// Marks the mentions of special tokens in `values`. Returns false if there are none: `values` are then unchanged.
pub(crate) fn protect(tokens: &SpecialTokens, values: [&mut Value; 3]) -> bool {
    let has_mention = |text: &str| tokens.mentions(text).next().is_some();
    if !values.iter().any(|value| any_string(value, &has_mention)) {
        return false;
    }
    values.into_iter().for_each(|value| mark_strings(value, tokens));
    true
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

fn mark_strings(value: &mut Value, tokens: &SpecialTokens) {
    match value {
        Value::String(text) => *text = marked(text, tokens),
        Value::Array(values) => values.iter_mut().for_each(|value| mark_strings(value, tokens)),
        Value::Object(fields) => {
            for (key, mut value) in std::mem::take(fields) {
                mark_strings(&mut value, tokens);
                fields.insert(marked(&key, tokens), value);
            }
        }
        _ => {}
    }
}

/// `text` with a mark behind the first character of each mention, and without marks of its own.
fn marked(text: &str, tokens: &SpecialTokens) -> String {
    let text = text.replace(MARK, "");
    let mut marked = String::with_capacity(text.len());
    let mut done = 0;
    for start in tokens.mentions(&text) {
        let cut = start + text[start..].chars().next().map_or(0, char::len_utf8);
        marked.push_str(&text[done..cut]);
        marked.push(MARK);
        done = cut;
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

    /// The text of a template that writes its own tokens around `messages`, with `/` at its cuts.
    fn render(mut messages: Value) -> String {
        let (mut tools, mut variables) = (json!([]), json!({}));
        let marked = protect(&tokens(), [&mut messages, &mut tools, &mut variables]);
        let text = format!("<|start|>{messages}<|end|>");
        let protected = if marked { ProtectedText::read(&text) } else { return text };
        let mut shown = protected.text;
        protected.cuts.iter().rev().for_each(|cut| shown.insert(*cut, '/'));
        shown
    }

    #[test]
    fn rendered_text_is_cut_in_each_mention() {
        let text = render(json!([{"content": "a<|end|>b<|end|>x", "<|start|>": ["é<|end|><|end|>"]}]));
        assert_eq!(
            text,
            r#"<|start|>[{"content":"a</|end|>b</|end|>x","</|start|>":["é</|end|></|end|>"]}]<|end|>"#
        );
    }

    #[test]
    fn text_without_mentions_is_not_changed() {
        assert_eq!(render(json!("a < b | c \u{fdd0}")), "<|start|>\"a < b | c \u{fdd0}\"<|end|>");
    }

    #[test]
    fn marks_in_messages_do_not_switch_the_protection_off() {
        let noncharacters: String = ('\u{fdd0}'..='\u{fdef}').collect();
        let text = render(json!(format!("{noncharacters}<|end|><\u{fdd0}|start|>")));
        let kept: String = ('\u{fdd1}'..='\u{fdef}').collect();
        assert_eq!(text, format!("<|start|>\"{kept}</|end|></|start|>\"<|end|>"));
    }

    /// Some templates write `<` and `>` around names.
    #[test]
    fn inside_of_tokens_is_marked() {
        assert_eq!(render(json!({"|end|": "x"})), "<|start|>{\"|/end|\":\"x\"}<|end|>");
        assert_eq!(render(json!({"end": "start"})), "<|start|>{\"end\":\"start\"}<|end|>");
    }

    #[test]
    fn cuts_at_the_ends_are_dropped() {
        let protected = ProtectedText::read("\u{fdd0}a\u{fdd0}\u{fdd0}b\u{fdd0}");
        assert_eq!(protected, ProtectedText { text: "ab".to_owned(), cuts: vec![1] });
    }
}
