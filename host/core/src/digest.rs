//! Digests in hexadecimal.

/// Formats `bytes` as lower-case hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses a digest of 64 hexadecimal digits; `None` for any other text.
#[must_use]
pub fn parse_digest(text: &str) -> Option<[u8; 32]> {
    // `from_str_radix` also accepts a sign.
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |index: usize| u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_digest_accepts_only_hexadecimal_digits() {
        let digest = [0xab; 32];
        assert_eq!(parse_digest(&to_hex(&digest)), Some(digest));
        assert_eq!(parse_digest(&to_hex(&digest).to_uppercase()), Some(digest));
        for wrong in [String::new(), "ab".repeat(31), "ab".repeat(33), "+f".repeat(32), "ä".repeat(32)] {
            assert_eq!(parse_digest(&wrong), None, "{wrong}");
        }
    }
}
