//! The settings of a plugin.

pub use crate::bindings::mode::tightwad::plugin::types::SettingValue;

/// The settings that a script, or a user on the command line, gave to the plugin.
///
/// ```
/// use tightwad_plugin_sdk::Settings;
///
/// // A plugin writes `Settings::from(job.settings())`.
/// let settings = Settings::default().with("overlap", false).with("max_draft_tokens", 16).with("rule", "strict");
/// assert_eq!(settings.flag("overlap"), Some(false));
/// assert_eq!(settings.count("max_draft_tokens"), Some(16));
/// assert_eq!(settings.text("rule"), Some("strict"));
/// // A missing key, and a value of another type.
/// assert_eq!((settings.number("share"), settings.number("rule")), (None, None));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings(Vec<(String, SettingValue)>);

impl Settings {
    /// Adds a value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<SettingValue>) -> Self {
        self.0.push((key.to_owned(), value.into()));
        self
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&SettingValue> {
        self.0.iter().find(|(own, _)| own == key).map(|(_, value)| value)
    }

    /// The value of `key`. `None`: it is missing, or is not a boolean.
    #[must_use]
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            SettingValue::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The value of `key`. `None`: it is missing, or is not a number.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            SettingValue::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The value of `key`, rounded down; numbers above [`u32::MAX`] are that. `None`: it is missing, or is not a number
    /// from 0 on.
    #[must_use]
    pub fn count(&self, key: &str) -> Option<u32> {
        self.number(key).filter(|number| *number >= 0.0).map(|number| number as u32)
    }

    /// The value of `key`. `None`: it is missing, or is not a text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            SettingValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The JSON text of `key`, such as a nested table. `None`: it is missing, or is a value of another type.
    #[must_use]
    pub fn json(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            SettingValue::Json(json) => Some(json),
            _ => None,
        }
    }
}

impl From<Vec<(String, SettingValue)>> for Settings {
    fn from(settings: Vec<(String, SettingValue)>) -> Self {
        Self(settings)
    }
}

impl From<Settings> for Vec<(String, SettingValue)> {
    fn from(settings: Settings) -> Self {
        settings.0
    }
}

impl From<bool> for SettingValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<f64> for SettingValue {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for SettingValue {
    fn from(count: u32) -> Self {
        Self::Number(f64::from(count))
    }
}

impl From<&str> for SettingValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_is_whole_and_in_range() {
        let settings =
            Settings::default().with("half", 2.5).with("low", -3.0).with("high", 1e12).with("text", "4");
        let counts = ["half", "low", "high", "text", "missing"].map(|key| settings.count(key));
        assert_eq!(counts, [Some(2), None, Some(u32::MAX), None, None]);
    }

    #[test]
    fn nested_value_is_json() {
        let value = SettingValue::Json("[1,2]".to_owned());
        let settings = Settings::from(vec![("list".to_owned(), value)]);
        assert_eq!((settings.json("list"), settings.text("list")), (Some("[1,2]"), None));
    }
}
