//! Texts of untrusted headers.

/// The maximum length of a text that a header keeps, in bytes.
pub const MAX_TEXT_BYTES: usize = 256;

/// Returns `bytes` as text of at most [`MAX_TEXT_BYTES`] bytes, without control characters.
#[must_use]
pub fn sanitize(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(MAX_TEXT_BYTES)];
    let mut text: String =
        String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Invalid UTF-8 became longer by its replacement characters.
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sanitize_bounds_texts_and_is_idempotent() {
        assert_eq!(sanitize(b"a\x1b[31m\nb"), "a [31m b");
        let twice = |bytes: &[u8]| sanitize(sanitize(bytes).as_bytes());
        for bytes in [&[0xff; 1000][..], &[0xc3, 0xa4].repeat(400), b"x"] {
            assert!(sanitize(bytes).len() <= MAX_TEXT_BYTES);
            assert_eq!(sanitize(bytes), twice(bytes));
        }
    }
}
