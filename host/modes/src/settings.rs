//! The settings of a plugin, in the contract's types.

use serde_json::{Map, Value};
use tightwad_sandbox::bindings::tightwad::plugin::types::SettingValue;

/// The settings that a script, or a user on the command line, gives to a plugin.
#[derive(Debug, Clone, Default)]
pub struct Settings(Vec<(String, SettingValue)>);

impl Settings {
    /// The keys and values, for a call of the plugin.
    pub(crate) fn to_list(&self) -> Vec<(String, SettingValue)> {
        self.0.clone()
    }
}

/// Leaves out keys whose value is `null`.
impl From<Map<String, Value>> for Settings {
    fn from(object: Map<String, Value>) -> Self {
        let typed = |(key, value): (String, Value)| {
            let value = match value {
                Value::Null => return None,
                Value::Bool(flag) => SettingValue::Flag(flag),
                Value::Number(number) => SettingValue::Number(number.as_f64()?),
                Value::String(text) => SettingValue::Text(text),
                nested @ (Value::Array(_) | Value::Object(_)) => SettingValue::Json(nested.to_string()),
            };
            Some((key, value))
        };
        Self(object.into_iter().filter_map(typed).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_keep_their_types_and_nested_values_become_json() {
        let object =
            json!({"on": true, "depth": 3, "share": 0.5, "rule": "strict", "none": null, "list": [1, "a"]});
        let settings = Settings::from(object.as_object().cloned().unwrap());
        let shown: Vec<String> =
            settings.to_list().iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
        let expected = [
            "on: SettingValue::Flag(true)",
            "depth: SettingValue::Number(3.0)",
            "share: SettingValue::Number(0.5)",
            "rule: SettingValue::Text(\"strict\")",
            "list: SettingValue::Json(\"[1,\\\"a\\\"]\")",
        ];
        assert_eq!(shown, expected);
    }
}
