//! Text from scripts, plugins and other machines, for logs, names and messages.

/// `text` without control characters, cut after `max_bytes` at a character. A control character becomes its escape,
/// such as `\n`: it could otherwise forge a log line or control a terminal.
#[must_use]
pub fn printable(text: &str, max_bytes: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max_bytes));
    for character in text.chars() {
        let length = line.len();
        if is_control(character) {
            line.extend(character.escape_default())
        } else {
            line.push(character)
        }
        if line.len() > max_bytes {
            line.truncate(length);
            line.push('…');
            break;
        }
    }
    line
}

/// True for control characters and for the marks that reorder text.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\n\u{1b}[31mb\u{202e}é", 100), "a\\n\\u{1b}[31mb\\u{202e}é");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(printable("ééé", 5), "éé…");
        assert_eq!(printable("abc\n", 4), "abc…");
        assert_eq!(printable("abc", 3), "abc");
    }
}
