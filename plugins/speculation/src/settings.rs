//! The mode's settings: a flat JSON object written by the host, so a scan is enough.

/// What stands behind `"key":`.
fn value<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let quoted = format!("\"{key}\"");
    let rest = json.get(json.find(&quoted)? + quoted.len()..)?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

/// The value of `"key": number`.
#[must_use]
pub fn number(json: &str, key: &str) -> Option<u32> {
    let rest = value(json, key)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

/// The value of `"key": true` or `"key": false`.
#[must_use]
pub fn flag(json: &str, key: &str) -> Option<bool> {
    let rest = value(json, key)?;
    match rest {
        _ if rest.starts_with("true") => Some(true),
        _ if rest.starts_with("false") => Some(false),
        _ => None,
    }
}

/// The value of `"key": "word"`.
#[must_use]
pub fn word<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (word, _) = value(json, key)?.strip_prefix('"')?.split_once('"')?;
    Some(word)
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_numbers() {
        assert_eq!(super::number(r#"{"a": 1, "max_draft" : 16}"#, "max_draft"), Some(16));
        assert_eq!(super::number(r#"{"max_draft":"x"}"#, "max_draft"), None);
    }
}
