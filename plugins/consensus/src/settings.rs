//! The mode's settings. A value that makes no sense is as good as none.

use tightwad_plugin_sdk::settings::{number, text};

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
