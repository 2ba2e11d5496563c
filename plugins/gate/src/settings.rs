//! The mode's settings. A value that makes no sense is as good as none.

use tightwad_plugin_sdk::Settings as Given;

/// The least logarithm that a script can set: far below every token that a model takes seriously.
const LEAST: f64 = -100.0;
/// Most members that a script can set.
const MOST: u32 = 64;

/// What a script can set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// `parallel`: how many members write at once.
    pub drafts: u32,
    /// `min_mean_logprob`: the least mean log-probability of a token with which an answer is approved.
    pub approve: f64,
    /// `min_token_logprob`: the least log-probability of a single token; an answer is cut before the first one below it.
    pub floor: f64,
    /// `min_kept_share`: the least share of an answer that stays in a correction.
    pub keep: f64,
    /// `max_retries`: how many more members write, one after the other, when all answers were rejected. Lost
    /// members are replaced in any case.
    pub tries: u32,
    /// `stream`: the beginning of an answer goes to the client as soon as it is good enough by itself. What
    /// comes behind it can then only be corrected.
    pub stream: bool,
}

impl Settings {
    /// Reads the settings from the script.
    #[must_use]
    pub fn read(given: &Given) -> Self {
        let real = |key: &str, otherwise: f64| given.number(key).unwrap_or(otherwise);
        let count = |key: &str, otherwise: u32| given.number(key).map_or(otherwise, |number| number as u32);
        Self {
            drafts: count("parallel", 1).clamp(1, MOST),
            approve: real("min_mean_logprob", -1.0).clamp(LEAST, 0.0),
            floor: real("min_token_logprob", -6.0).clamp(LEAST, 0.0),
            keep: real("min_kept_share", 0.3).clamp(0.0, 1.0),
            tries: count("max_retries", 0).min(MOST),
            stream: given.flag("stream").unwrap_or(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightwad_plugin_sdk::SettingValue;

    #[test]
    fn nothing_means_the_defaults() {
        let defaults = Settings { drafts: 1, approve: -1.0, floor: -6.0, keep: 0.3, tries: 0, stream: true };
        let nonsense = Given::default()
            .with("parallel", "x")
            .with("min_mean_logprob", true)
            .with("min_token_logprob", SettingValue::Json("[]".to_owned()))
            .with("min_kept_share", SettingValue::Json("{}".to_owned()))
            .with("max_retries", true);
        for nothing in [Given::default(), nonsense] {
            assert_eq!(Settings::read(&nothing), defaults, "{nothing:?}");
        }
    }

    #[test]
    fn values_are_read() {
        let given = Given::default()
            .with("name", "min_kept_share")
            .with("min_kept_share", 0.5)
            .with("parallel", 3)
            .with("min_mean_logprob", -0.25)
            .with("min_token_logprob", -4.0)
            .with("max_retries", 2)
            .with("stream", false);
        let read = Settings { drafts: 3, approve: -0.25, floor: -4.0, keep: 0.5, tries: 2, stream: false };
        assert_eq!(Settings::read(&given), read);
    }

    #[test]
    fn values_are_kept_in_range() {
        let low = Given::default()
            .with("parallel", 0)
            .with("min_mean_logprob", f64::NEG_INFINITY)
            .with("min_token_logprob", f64::NEG_INFINITY)
            .with("min_kept_share", -1.0)
            .with("max_retries", -5.0);
        let least = Settings { drafts: 1, approve: LEAST, floor: LEAST, keep: 0.0, tries: 0, stream: true };
        assert_eq!(Settings::read(&low), least);
        let high = Given::default()
            .with("parallel", f64::INFINITY)
            .with("min_mean_logprob", 3)
            .with("min_token_logprob", 3)
            .with("min_kept_share", 9)
            .with("max_retries", f64::INFINITY);
        let most = Settings { drafts: MOST, approve: 0.0, floor: 0.0, keep: 1.0, tries: MOST, stream: true };
        assert_eq!(Settings::read(&high), most);
    }

    #[test]
    fn a_text_that_looks_like_a_setting_is_none() {
        let given = Given::default()
            .with("prompt", "say \"min_mean_logprob\":-50 or \"min_kept_share\": 0")
            .with("min_mean_logprob", -0.5);
        let settings = Settings::read(&given);
        assert_eq!((settings.approve, settings.keep), (-0.5, 0.3));
    }
}
