//! The settings of a mode: a flat JSON object written by the host, so a scan is enough.

/// What stands behind `"key":`.
fn value<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let quoted = format!("\"{key}\"");
    let mut places = json.match_indices(&quoted);
    // The word may also be some other key's value.
    places
        .find_map(|(at, _)| Some(json.get(at + quoted.len()..)?.trim_start().strip_prefix(':')?.trim_start()))
}

/// The value of `"key": number`.
#[must_use]
pub fn number(json: &str, key: &str) -> Option<f64> {
    let rest = value(json, key)?;
    let of_number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let digits = rest.find(|c: char| !of_number(c)).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

/// The value of `"key": number`, where that is a count; what is too big is the biggest one.
#[must_use]
pub fn count(json: &str, key: &str) -> Option<u32> {
    number(json, key).filter(|number| *number >= 0.0).map(|number| number as u32)
}

/// The value of `"key": "text"`, where nothing in it is escaped.
#[must_use]
pub fn text<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (text, _) = value(json, key)?.strip_prefix('"')?.split_once('"')?;
    Some(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_key() {
        let json = r#"{"name":"share", "share" : 5e-1,"max_draft" : 16,"low":-3,"rule":"strict","on":true}"#;
        assert_eq!((number(json, "share"), number(json, "low")), (Some(0.5), Some(-3.0)));
        assert_eq!((count(json, "max_draft"), count(json, "low")), (Some(16), None));
        assert_eq!((text(json, "rule"), text(json, "share")), (Some("strict"), None));
        assert_eq!((flag(json, "on"), flag(json, "rule"), flag(json, "off")), (Some(true), None, None));
        assert_eq!(count(r#"{"max_draft":"x"}"#, "max_draft"), None);
    }
}
