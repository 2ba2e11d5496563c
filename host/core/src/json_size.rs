//! Bounds the memory of parsed JSON before the JSON is parsed.
//!
//! A parsed value takes many times the memory of its text: each `0,` of a list takes 72 bytes. So servers first count
//! the parts of a request's text.

/// The maximum number of numbers in a request: prompts as token ids can be long.
pub const MAX_JSON_NUMBERS: usize = 1 << 19;
/// The maximum number of other parts of a request: strings, names, objects, arrays, `true`, `false` and `null`.
pub const MAX_JSON_PARTS: usize = 100_000;

/// A request has too many parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMuchJson {
    /// Too many numbers.
    #[error("the request has more than {MAX_JSON_NUMBERS} numbers. Send fewer in one request")]
    Numbers,
    /// Too many strings, names, objects, arrays or literals.
    #[error(
        "the request has more than {MAX_JSON_PARTS} strings, names, objects and arrays. Send fewer in one request"
    )]
    Parts,
}

/// The number of parts of one request's JSON texts.
#[derive(Debug, Default)]
pub struct JsonSize {
    numbers: usize,
    parts: usize,
}

impl JsonSize {
    /// Adds the parts of the JSON `text`, which can be malformed.
    ///
    /// # Errors
    ///
    /// [`TooMuchJson`] if the request has too many parts to be parsed.
    pub fn add(&mut self, text: &[u8]) -> Result<(), TooMuchJson> {
        let mut bytes = text.iter();
        // True inside a number or a literal.
        let mut inside_word = false;
        while let Some(byte) = bytes.next() {
            let is_word = !byte.is_ascii_whitespace() && !b"\"{}[],:".contains(byte);
            match byte {
                b'"' => {
                    self.parts += 1;
                    skip_string(&mut bytes);
                }
                b'{' | b'[' => self.parts += 1,
                b'-' | b'0'..=b'9' if !inside_word => self.numbers += 1,
                _ if is_word && !inside_word => self.parts += 1,
                _ => {}
            }
            inside_word = is_word;
            // The rest of a text that will be refused costs no time.
            if self.parts > MAX_JSON_PARTS {
                return Err(TooMuchJson::Parts);
            }
            if self.numbers > MAX_JSON_NUMBERS {
                return Err(TooMuchJson::Numbers);
            }
        }
        Ok(())
    }
}

/// Moves `bytes` from inside a string behind its end.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8]) -> Result<(), TooMuchJson> {
        JsonSize::default().add(text)
    }

    fn list(item: &str, count: usize) -> Vec<u8> {
        format!("[{}]", vec![item; count].join(",")).into_bytes()
    }

    #[test]
    fn numbers_and_other_parts_have_separate_limits() {
        assert_eq!(check(&list("-1.5e3", MAX_JSON_NUMBERS)), Ok(()));
        assert_eq!(check(&list("0", MAX_JSON_NUMBERS + 1)), Err(TooMuchJson::Numbers));
        // The list itself is a part.
        for item in ["\"\"", "{}", "[ ]", "null", "true"] {
            assert_eq!(check(&list(item, MAX_JSON_PARTS - 1)), Ok(()), "{item}");
            assert_eq!(check(&list(item, MAX_JSON_PARTS)), Err(TooMuchJson::Parts), "{item}");
        }
        assert_eq!(check(&list("{\"a\": 1}", MAX_JSON_PARTS / 2)), Err(TooMuchJson::Parts));
    }

    #[test]
    fn text_of_strings_does_not_count() {
        let text = "[0,0,{\\\"\\\\".repeat(MAX_JSON_NUMBERS);
        assert_eq!(check(format!("[\"{text}\"]").as_bytes()), Ok(()));
        assert_eq!(check(b"\"unfinished \\"), Ok(()));
    }

    #[test]
    fn texts_of_one_request_add_up() {
        let mut size = JsonSize::default();
        assert_eq!(size.add(&list("0", MAX_JSON_NUMBERS)), Ok(()));
        assert_eq!(size.add(b"0"), Err(TooMuchJson::Numbers));
    }
}
