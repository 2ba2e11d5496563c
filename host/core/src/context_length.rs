//! Parses context lengths such as `32k`.

/// The text is not a number of tokens, or the number is 0 or above [`u32::MAX`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a number of tokens such as 32768 or 32k")]
pub struct InvalidContextLength(pub String);

/// Parses a number of tokens, with an optional suffix `k` (1,024) or `m` (1,048,576), as in `32k`.
///
/// # Errors
///
/// Returns [`InvalidContextLength`], which names the text.
pub fn parse_context_length(text: &str) -> Result<u32, InvalidContextLength> {
    let invalid = || InvalidContextLength(text.to_owned());
    let (digits, unit) = match text.trim().to_ascii_lowercase() {
        text if text.ends_with('k') => (text[..text.len() - 1].to_owned(), 1 << 10),
        text if text.ends_with('m') => (text[..text.len() - 1].to_owned(), 1 << 20),
        text => (text, 1),
    };
    let number: u32 = digits.trim().parse().map_err(|_| invalid())?;
    number.checked_mul(unit).filter(|tokens| *tokens > 0).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_length_accepts_suffixes() {
        for (text, tokens) in
            [("4096", 4096), ("32k", 32_768), ("128K", 131_072), ("1m", 1 << 20), (" 8 k ", 8192)]
        {
            assert_eq!(parse_context_length(text), Ok(tokens), "{text}");
        }
        for invalid in ["", "k", "big", "1.5k", "-1", "0", "99999999k", "32kb"] {
            assert!(parse_context_length(invalid).is_err(), "{invalid}");
        }
    }
}
