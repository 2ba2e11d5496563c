//! The mode's settings: a flat JSON object written by the host, so a scan is enough.

/// The value of `"key": number`.
#[must_use]
pub fn number(json: &str, key: &str) -> Option<u32> {
    let quoted = format!("\"{key}\"");
    let rest = json.get(json.find(&quoted)? + quoted.len()..)?.trim_start().strip_prefix(':')?.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_numbers() {
        assert_eq!(super::number(r#"{"a": 1, "max_draft" : 16}"#, "max_draft"), Some(16));
        assert_eq!(super::number(r#"{"max_draft":"x"}"#, "max_draft"), None);
    }
}
