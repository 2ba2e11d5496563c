//! The mode's settings. A value that makes no sense is as good as none.

use tightwad_plugin_sdk::Settings as Given;

use crate::rules::Rule;

/// What a script can set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// `rule`: by what ballots are ruled on, where no plugin does.
    pub rule: Rule,
    /// `max_draft_tokens`: most tokens of a ballot.
    pub block: u32,
    /// `audit_rate`: the share of acceptances that the target looks at afterwards.
    pub audit: f64,
    /// `min_agreement`: the least agreement that audits may show.
    pub floor: f64,
    /// `quorum`: answers that are waited for; `None`: more than half of the drafters.
    pub quorum: Option<u32>,
    /// `min_weight`: the share of all weight that `hedge` needs.
    pub threshold: f64,
}

impl Settings {
    /// Reads the settings from the script. An unknown rule is the tightest one.
    #[must_use]
    pub fn read(given: &Given) -> Self {
        let share = |key: &str, otherwise: f64| given.number(key).unwrap_or(otherwise).clamp(0.0, 1.0);
        let count = |key: &str| given.number(key).map(|number| number as u32);
        Self {
            rule: given.text("rule").and_then(Rule::named).unwrap_or_default(),
            block: count("max_draft_tokens").unwrap_or(16).clamp(1, 64),
            audit: share("audit_rate", 0.05),
            floor: share("min_agreement", 0.9),
            quorum: count("quorum").filter(|quorum| *quorum > 0),
            threshold: share("min_weight", 0.75),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightwad_plugin_sdk::SettingValue;

    #[test]
    fn nothing_means_the_defaults() {
        let settings = Settings::read(&Given::default());
        let defaults = Settings {
            rule: Rule::Strict,
            block: 16,
            audit: 0.05,
            floor: 0.9,
            quorum: None,
            threshold: 0.75,
        };
        assert_eq!(settings, defaults);
        let nonsense = Given::default()
            .with("rule", "loudest")
            .with("max_draft_tokens", "x")
            .with("audit_rate", true)
            .with("min_agreement", SettingValue::Json("[]".to_owned()))
            .with("quorum", 0)
            .with("min_weight", SettingValue::Json("{}".to_owned()));
        assert_eq!(Settings::read(&nonsense), defaults);
    }

    #[test]
    fn values_are_read_and_kept_in_range() {
        let given = Given::default()
            .with("name", "rule")
            .with("rule", "any_disagree")
            .with("max_draft_tokens", 1000)
            .with("audit_rate", 1.0)
            .with("min_agreement", -3.0)
            .with("quorum", 4)
            .with("min_weight", 0.6);
        let settings = Settings::read(&given);
        assert_eq!(settings.rule, Rule::AnyDisagree);
        assert_eq!((settings.block, settings.audit, settings.floor), (64, 1.0, 0.0));
        assert_eq!((settings.quorum, settings.threshold), (Some(4), 0.6));
        assert_eq!(Settings::read(&Given::default().with("max_draft_tokens", 0)).block, 1);
    }
}
