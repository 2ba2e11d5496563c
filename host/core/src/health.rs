//! The health of a backend.

use serde::Serialize;

/// The health of a backend: whether it can answer a request now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "health", content = "reason", rename_all = "lowercase")]
pub enum Health {
    /// The backend answers requests.
    #[default]
    Ready,
    /// The backend cannot answer yet. Requests wait.
    Loading,
    /// The backend fails, for this reason. It tries again by itself.
    Failing(String),
}

impl Health {
    /// True if the backend answers requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }

    /// The health of several backends, one of which suffices: the best one. Without a backend the health is
    /// [`Health::Ready`].
    #[must_use]
    pub fn best(backends: impl IntoIterator<Item = Self>) -> Self {
        let rank = |health: &Self| match health {
            Self::Ready => 0,
            Self::Loading => 1,
            Self::Failing(_) => 2,
        };
        backends.into_iter().min_by_key(rank).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_health_is_ready_before_loading_before_the_first_failure() {
        let failing = |reason: &str| Health::Failing(reason.to_owned());
        assert_eq!(Health::best([failing("a"), Health::Loading, Health::Ready]), Health::Ready);
        assert_eq!(Health::best([failing("a"), Health::Loading]), Health::Loading);
        assert_eq!(Health::best([failing("a"), failing("b")]), failing("a"));
        assert_eq!(Health::best([]), Health::Ready);
    }

    #[test]
    fn health_is_one_word_with_an_optional_reason() {
        let json = |health: Health| serde_json::to_string(&health).unwrap();
        assert_eq!(json(Health::Ready), r#"{"health":"ready"}"#);
        assert_eq!(json(Health::Failing("no".to_owned())), r#"{"health":"failing","reason":"no"}"#);
    }
}
