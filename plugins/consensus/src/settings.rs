//! The mode's settings: a flat JSON object written by the host, so a scan is enough. A value that makes no
//! sense is as good as none.

use crate::rules::Rule;

/// What a script can set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// `rule`: by what ballots are ruled on, where no plugin does.
    pub rule: Rule,
    /// `block`: most tokens of a ballot.
    pub block: u32,
    /// `audit`: the share of acceptances that the target looks at afterwards.
    pub audit: f64,
    /// `floor`: the least agreement that audits may show.
    pub floor: f64,
    /// `quorum`: answers that are waited for; `None`: more than half of the drafters.
    pub quorum: Option<u32>,
    /// `threshold`: the share of all weight that `hedge` needs.
    pub threshold: f64,
}

impl Settings {
    /// Reads a JSON object. An unknown rule is the tightest one.
    #[must_use]
    pub fn read(json: &str) -> Self {
        let share = |key: &str, otherwise: f64| number(json, key).unwrap_or(otherwise).clamp(0.0, 1.0);
        let count = |key: &str| number(json, key).map(|number| number as u32);
        Self {
            rule: text(json, "rule").and_then(Rule::named).unwrap_or_default(),
            block: count("block").unwrap_or(16).clamp(1, 64),
            audit: share("audit", 0.05),
            floor: share("floor", 0.9),
            quorum: count("quorum").filter(|quorum| *quorum > 0),
            threshold: share("threshold", 0.75),
        }
    }
}

/// What stands behind `"key":`.
fn value<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let quoted = format!("\"{key}\"");
    let mut places = json.match_indices(&quoted);
    // The word may also be some other key's value.
    places
        .find_map(|(at, _)| Some(json.get(at + quoted.len()..)?.trim_start().strip_prefix(':')?.trim_start()))
}

/// The value of `"key": number`.
fn number(json: &str, key: &str) -> Option<f64> {
    let rest = value(json, key)?;
    let of_number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let digits = rest.find(|c: char| !of_number(c)).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

/// The value of `"key": "text"`, where nothing in it is escaped.
fn text<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (text, _) = value(json, key)?.strip_prefix('"')?.split_once('"')?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_means_the_defaults() {
        let settings = Settings::read("{}");
        let defaults = Settings {
            rule: Rule::Strict,
            block: 16,
            audit: 0.05,
            floor: 0.9,
            quorum: None,
            threshold: 0.75,
        };
        assert_eq!(settings, defaults);
        let nonsense = r#"{"rule":"loudest","block":"x","audit":null,"floor":[],"quorum":0,"threshold":{}}"#;
        assert_eq!(Settings::read(nonsense), defaults);
    }

    #[test]
    fn values_are_read_and_kept_in_range() {
        let json = r#"{"name":"rule", "rule" : "any_disagree","block":1000,"audit":1e0,"floor":-3,
            "quorum": 4,"threshold":0.6}"#;
        let settings = Settings::read(json);
        assert_eq!(settings.rule, Rule::AnyDisagree);
        assert_eq!((settings.block, settings.audit, settings.floor), (64, 1.0, 0.0));
        assert_eq!((settings.quorum, settings.threshold), (Some(4), 0.6));
        assert_eq!(Settings::read(r#"{"block":0}"#).block, 1);
    }
}
