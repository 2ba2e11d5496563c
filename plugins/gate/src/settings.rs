//! The mode's settings. A value that makes no sense is as good as none.

use tightwad_plugin_sdk::settings::{flag, number};

/// The least logarithm that a script can set: far below every token that a model takes seriously.
const LEAST: f64 = -100.0;
/// Most members that a script can set.
const MOST: u32 = 64;

/// What a script can set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// `drafts`: how many members write at once.
    pub drafts: u32,
    /// `approve`: the least mean log-probability of a token with which an answer is approved.
    pub approve: f64,
    /// `floor`: the least log-probability of a single token; an answer is cut before the first one below it.
    pub floor: f64,
    /// `keep`: the least share of an answer that stays in a correction.
    pub keep: f64,
    /// `tries`: how many more members write, one after the other, when all answers were rejected. Lost
    /// members are replaced in any case.
    pub tries: u32,
    /// `stream`: the beginning of an answer goes to the client as soon as it is good enough by itself. What
    /// comes behind it can then only be corrected.
    pub stream: bool,
}

impl Settings {
    /// Reads a JSON object.
    #[must_use]
    pub fn read(json: &str) -> Self {
        let real = |key: &str, otherwise: f64| number(json, key).unwrap_or(otherwise);
        let count = |key: &str, otherwise: u32| number(json, key).map_or(otherwise, |number| number as u32);
        Self {
            drafts: count("drafts", 1).clamp(1, MOST),
            approve: real("approve", -1.0).clamp(LEAST, 0.0),
            floor: real("floor", -6.0).clamp(LEAST, 0.0),
            keep: real("keep", 0.3).clamp(0.0, 1.0),
            tries: count("tries", 0).min(MOST),
            stream: flag(json, "stream").unwrap_or(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_means_the_defaults() {
        let defaults = Settings { drafts: 1, approve: -1.0, floor: -6.0, keep: 0.3, tries: 0, stream: true };
        for nothing in ["", "{}", r#"{"drafts":"x","approve":null,"floor":[],"keep":{},"tries":true}"#] {
            assert_eq!(Settings::read(nothing), defaults, "{nothing}");
        }
    }

    #[test]
    fn values_are_read() {
        let json = r#"{"name":"keep", "keep" : 5e-1,"drafts":3,"approve":-0.25,
            "floor": -4,"tries":2, "stream": false}"#;
        let read = Settings { drafts: 3, approve: -0.25, floor: -4.0, keep: 0.5, tries: 2, stream: false };
        assert_eq!(Settings::read(json), read);
    }

    #[test]
    fn values_are_kept_in_range() {
        let low = r#"{"drafts":0,"approve":-1e999,"floor":-1e999,"keep":-1,"tries":-5}"#;
        let least = Settings { drafts: 1, approve: LEAST, floor: LEAST, keep: 0.0, tries: 0, stream: true };
        assert_eq!(Settings::read(low), least);
        let high = r#"{"drafts":1e999,"approve":3,"floor":3,"keep":9,"tries":1e999}"#;
        let most = Settings { drafts: MOST, approve: 0.0, floor: 0.0, keep: 1.0, tries: MOST, stream: true };
        assert_eq!(Settings::read(high), most);
    }

    #[test]
    fn a_text_that_looks_like_a_setting_is_none() {
        let json = r#"{"prompt":"say \"approve\":-50 or \"keep\": 0","approve":-0.5}"#;
        let settings = Settings::read(json);
        assert_eq!((settings.approve, settings.keep), (-0.5, 0.3));
    }
}
