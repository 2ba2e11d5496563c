//! Excerpts of texts that other machines sent, for error messages.

use tightwad_core::Token;

/// The maximum number of characters of an excerpt.
pub const MAX_EXCERPT_CHARACTERS: usize = 200;

/// The beginning of `text` on one line, without control characters.
///
/// `secret` is the token that the caller sent: some servers repeat it in their errors.
#[must_use]
pub fn excerpt(text: &str, secret: Option<&Token>) -> String {
    let separates = |c: char| c.is_whitespace() || is_invisible(c);
    let words = text.split(separates).filter(|word| !word.is_empty());
    let hidden = |word: &str| secret.is_some_and(|secret| word.contains(secret.secret()));
    let mut excerpt = String::new();
    let mut remaining = MAX_EXCERPT_CHARACTERS;
    for word in words {
        let word = if hidden(word) { "[token]" } else { word };
        let separator = usize::from(!excerpt.is_empty());
        if word.chars().take(remaining + 1).count() + separator > remaining {
            excerpt.extend(word.chars().take(if separator == 0 { remaining } else { 0 }));
            excerpt.push('\u{2026}');
            break;
        }
        remaining -= word.chars().count() + separator;
        excerpt.extend(" ".chars().take(separator));
        excerpt.push_str(word);
    }
    excerpt
}

/// True for control characters, and for characters that reorder or hide the text around them.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpt_is_one_short_line_without_control_characters() {
        assert_eq!(excerpt(" a\u{1b}[31m\r\n b\u{202e}c ", None), "a [31m b c");
        assert_eq!(excerpt("", None), "");
        let long = excerpt(&"word ".repeat(1_000_000), None);
        assert_eq!(long.chars().count(), 200);
        assert!(long.ends_with("word\u{2026}"), "{long}");
        let unbroken = excerpt(&"\u{e4}".repeat(1_000_000), None);
        assert_eq!(unbroken.chars().count(), MAX_EXCERPT_CHARACTERS + 1);
    }

    #[test]
    fn excerpt_hides_the_token() {
        let token = Token::new("sk-secret").unwrap();
        assert_eq!(excerpt("wrong key 'sk-secret'.", Some(&token)), "wrong key [token]");
    }
}
