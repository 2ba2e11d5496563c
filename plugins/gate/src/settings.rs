//! The settings of the mode. A value without meaning counts as missing.

use tightwad_plugin_sdk::Settings as ScriptSettings;

/// The least log-probability that a script can set: far below every token that a model seriously considers.
const MIN_LOGPROB: f64 = -100.0;
/// The greatest number of members that a script can set.
const MAX_MEMBERS: u32 = 64;

/// The settings that a script can give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// `parallel`: members that write at the same time.
    pub parallel: u32,
    /// `min_mean_logprob`: the least mean log-probability per token of an approved answer.
    pub min_mean_logprob: f64,
    /// `min_token_logprob`: the least log-probability of a token. An answer is cut before the first token below it.
    pub min_token_logprob: f64,
    /// `min_kept_share`: the least share of an answer that a correction keeps.
    pub min_kept_share: f64,
    /// `max_retries`: further members that write, one after the other, if all answers were rejected. Members that
    /// failed are replaced in any case.
    pub max_retries: u32,
    /// `stream`: the client receives the beginning of an answer as soon as it is good enough by itself. The rest can
    /// then only be corrected.
    pub stream: bool,
}

impl Settings {
    /// Reads the script's settings.
    #[must_use]
    pub fn from_script(script: &ScriptSettings) -> Self {
        let real = |key: &str, default: f64| script.number(key).unwrap_or(default);
        let count = |key: &str, default: u32| script.number(key).map_or(default, |number| number as u32);
        Self {
            parallel: count("parallel", 1).clamp(1, MAX_MEMBERS),
            min_mean_logprob: real("min_mean_logprob", -1.0).clamp(MIN_LOGPROB, 0.0),
            min_token_logprob: real("min_token_logprob", -6.0).clamp(MIN_LOGPROB, 0.0),
            min_kept_share: real("min_kept_share", 0.3).clamp(0.0, 1.0),
            max_retries: count("max_retries", 0).min(MAX_MEMBERS),
            stream: script.flag("stream").unwrap_or(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightwad_plugin_sdk::SettingValue;

    #[test]
    fn missing_and_meaningless_values_are_the_defaults() {
        let defaults = Settings {
            parallel: 1,
            min_mean_logprob: -1.0,
            min_token_logprob: -6.0,
            min_kept_share: 0.3,
            max_retries: 0,
            stream: true,
        };
        let nonsense = ScriptSettings::default()
            .with("parallel", "x")
            .with("min_mean_logprob", true)
            .with("min_token_logprob", SettingValue::Json("[]".to_owned()))
            .with("min_kept_share", SettingValue::Json("{}".to_owned()))
            .with("max_retries", true);
        for nothing in [ScriptSettings::default(), nonsense] {
            assert_eq!(Settings::from_script(&nothing), defaults, "{nothing:?}");
        }
    }

    #[test]
    fn values_are_read() {
        let script = ScriptSettings::default()
            .with("name", "min_kept_share")
            .with("min_kept_share", 0.5)
            .with("parallel", 3)
            .with("min_mean_logprob", -0.25)
            .with("min_token_logprob", -4.0)
            .with("max_retries", 2)
            .with("stream", false);
        let expected = Settings {
            parallel: 3,
            min_mean_logprob: -0.25,
            min_token_logprob: -4.0,
            min_kept_share: 0.5,
            max_retries: 2,
            stream: false,
        };
        assert_eq!(Settings::from_script(&script), expected);
    }

    #[test]
    fn values_are_clamped() {
        let low = ScriptSettings::default()
            .with("parallel", 0)
            .with("min_mean_logprob", f64::NEG_INFINITY)
            .with("min_token_logprob", f64::NEG_INFINITY)
            .with("min_kept_share", -1.0)
            .with("max_retries", -5.0);
        let least = Settings {
            parallel: 1,
            min_mean_logprob: MIN_LOGPROB,
            min_token_logprob: MIN_LOGPROB,
            min_kept_share: 0.0,
            max_retries: 0,
            stream: true,
        };
        assert_eq!(Settings::from_script(&low), least);
        let high = ScriptSettings::default()
            .with("parallel", f64::INFINITY)
            .with("min_mean_logprob", 3)
            .with("min_token_logprob", 3)
            .with("min_kept_share", 9)
            .with("max_retries", f64::INFINITY);
        let most = Settings {
            parallel: MAX_MEMBERS,
            min_mean_logprob: 0.0,
            min_token_logprob: 0.0,
            min_kept_share: 1.0,
            max_retries: MAX_MEMBERS,
            stream: true,
        };
        assert_eq!(Settings::from_script(&high), most);
    }

    #[test]
    fn text_that_looks_like_a_setting_is_ignored() {
        let script = ScriptSettings::default()
            .with("prompt", "say \"min_mean_logprob\":-50 or \"min_kept_share\": 0")
            .with("min_mean_logprob", -0.5);
        let settings = Settings::from_script(&script);
        assert_eq!((settings.min_mean_logprob, settings.min_kept_share), (-0.5, 0.3));
    }
}
