//! The settings of the picker. A value without meaning counts as missing.

use tightwad_plugin_sdk::Settings as ScriptSettings;

/// The order of fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The pieces with the fewest copies first.
    #[default]
    Rarest,
    /// Random, for comparisons.
    Random,
    /// In file order, so that the file can be read during the pull. It spreads a model badly.
    Sequential,
}

/// The settings that a user can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `order`: `rarest`, `random` or `sequential`.
    pub order: Order,
    /// The maximum number of fetches of one piece at the same time. 0 and 1: no second fetch.
    pub max_fetches_per_piece: u32,
}

impl Settings {
    /// Reads the user's settings.
    #[must_use]
    pub fn from_script(script: &ScriptSettings) -> Self {
        let order = match script.text("order") {
            Some("random") => Order::Random,
            Some("sequential") => Order::Sequential,
            _ => Order::Rarest,
        };
        Self { order, max_fetches_per_piece: script.count("max_fetches_per_piece").unwrap_or(2).min(8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_meaningless_ones_are_the_defaults() {
        let defaults = Settings { order: Order::Rarest, max_fetches_per_piece: 2 };
        let with = |order: &str, max_fetches_per_piece: u32| {
            ScriptSettings::default()
                .with("order", order)
                .with("max_fetches_per_piece", max_fetches_per_piece)
        };
        assert_eq!(Settings::from_script(&ScriptSettings::default()), defaults);
        assert_eq!(
            Settings::from_script(
                &ScriptSettings::default().with("order", "best").with("max_fetches_per_piece", "x")
            ),
            defaults
        );
        let sequential = Settings { order: Order::Sequential, max_fetches_per_piece: 0 };
        assert_eq!(Settings::from_script(&with("sequential", 0)), sequential);
        assert_eq!(Settings::from_script(&with("random", 1000)).max_fetches_per_piece, 8);
    }
}
