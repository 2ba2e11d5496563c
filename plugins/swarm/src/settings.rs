//! The policy's settings. A value that makes no sense is as good as none.

use tightwad_plugin_sdk::Settings as Given;

/// In what order pieces are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Those that the fewest peers have.
    #[default]
    Rarest,
    /// Any: to compare with.
    Random,
    /// As they are in the file: to read it while it comes. It spreads a model badly.
    Sequential,
}

/// What a user can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `order`: `rarest`, `random` or `sequential`.
    pub order: Order,
    /// `end_game`: most fetches of one piece at a time; 0 and 1: never a second one.
    pub end_game: u32,
}

impl Settings {
    /// Reads the settings from the user.
    #[must_use]
    pub fn read(given: &Given) -> Self {
        let order = match given.text("order") {
            Some("random") => Order::Random,
            Some("sequential") => Order::Sequential,
            _ => Order::Rarest,
        };
        Self { order, end_game: given.count("end_game").unwrap_or(2).min(8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_what_makes_no_sense_is_the_default() {
        let defaults = Settings { order: Order::Rarest, end_game: 2 };
        let with =
            |order: &str, end_game: u32| Given::default().with("order", order).with("end_game", end_game);
        assert_eq!(Settings::read(&Given::default()), defaults);
        assert_eq!(Settings::read(&Given::default().with("order", "best").with("end_game", "x")), defaults);
        let sequential = Settings { order: Order::Sequential, end_game: 0 };
        assert_eq!(Settings::read(&with("sequential", 0)), sequential);
        assert_eq!(Settings::read(&with("random", 1000)).end_game, 8);
    }
}
