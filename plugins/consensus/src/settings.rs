//! The settings of the mode. A value without meaning counts as missing.

use tightwad_plugin_sdk::Settings as ScriptSettings;

use crate::rules::Rule;

/// The settings that a script can give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// `rule`: the rule, unless a policy rules.
    pub rule: Rule,
    /// `max_draft_tokens`: tokens of a ballot, at most.
    pub max_draft_tokens: u32,
    /// `audit_rate`: the share of acceptances that the target audits.
    pub audit_rate: f64,
    /// `min_agreement`: the least agreement in audits. Below it the rule becomes stricter.
    pub min_agreement: f64,
    /// `quorum`: drafts after which the grace period begins. `None`: more than half of the drafters.
    pub quorum: Option<u32>,
    /// `min_weight`: the share of all weight that `hedge` needs.
    pub min_weight: f64,
}

impl Settings {
    /// Reads the script's settings. An unknown rule becomes the strictest one.
    #[must_use]
    pub fn from_script(script: &ScriptSettings) -> Self {
        let share = |key: &str, default: f64| script.number(key).unwrap_or(default).clamp(0.0, 1.0);
        let count = |key: &str| script.number(key).map(|number| number as u32);
        Self {
            rule: script.text("rule").and_then(Rule::from_name).unwrap_or_default(),
            max_draft_tokens: count("max_draft_tokens").unwrap_or(16).clamp(1, 64),
            audit_rate: share("audit_rate", 0.05),
            min_agreement: share("min_agreement", 0.9),
            quorum: count("quorum").filter(|quorum| *quorum > 0),
            min_weight: share("min_weight", 0.75),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightwad_plugin_sdk::SettingValue;

    #[test]
    fn missing_and_meaningless_values_are_the_defaults() {
        let settings = Settings::from_script(&ScriptSettings::default());
        let defaults = Settings {
            rule: Rule::Strict,
            max_draft_tokens: 16,
            audit_rate: 0.05,
            min_agreement: 0.9,
            quorum: None,
            min_weight: 0.75,
        };
        assert_eq!(settings, defaults);
        let nonsense = ScriptSettings::default()
            .with("rule", "loudest")
            .with("max_draft_tokens", "x")
            .with("audit_rate", true)
            .with("min_agreement", SettingValue::Json("[]".to_owned()))
            .with("quorum", 0)
            .with("min_weight", SettingValue::Json("{}".to_owned()));
        assert_eq!(Settings::from_script(&nonsense), defaults);
    }

    #[test]
    fn values_are_read_and_clamped() {
        let script = ScriptSettings::default()
            .with("name", "rule")
            .with("rule", "any_disagree")
            .with("max_draft_tokens", 1000)
            .with("audit_rate", 1.0)
            .with("min_agreement", -3.0)
            .with("quorum", 4)
            .with("min_weight", 0.6);
        let settings = Settings::from_script(&script);
        assert_eq!(settings.rule, Rule::AnyDisagree);
        let (max_draft_tokens, audit_rate) = (settings.max_draft_tokens, settings.audit_rate);
        assert_eq!((max_draft_tokens, audit_rate, settings.min_agreement), (64, 1.0, 0.0));
        assert_eq!((settings.quorum, settings.min_weight), (Some(4), 0.6));
        let zero = ScriptSettings::default().with("max_draft_tokens", 0);
        assert_eq!(Settings::from_script(&zero).max_draft_tokens, 1);
    }
}
