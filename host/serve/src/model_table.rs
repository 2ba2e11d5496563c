//! The models that the endpoint serves.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tightwad_core::{SharedBackend, sync};

/// Backends by the names that clients use.
pub struct ServedModels {
    backends: BTreeMap<String, SharedBackend>,
    created: u64,
}

impl ServedModels {
    /// Creates the set from names and backends.
    #[must_use]
    pub fn new(backends: impl IntoIterator<Item = (String, SharedBackend)>) -> Self {
        Self { backends: backends.into_iter().collect(), created: unix_seconds() }
    }

    /// The backend with the name `model`.
    #[must_use]
    pub fn get(&self, model: &str) -> Option<&SharedBackend> {
        self.backends.get(model)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.backends.keys().map(String::as_str)
    }

    /// The backends by name, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SharedBackend)> {
        self.backends.iter().map(|(name, backend)| (name.as_str(), backend))
    }

    /// True if some model can answer.
    pub(crate) fn is_ready(&self) -> bool {
        self.backends.values().any(|backend| backend.health().is_ready())
    }

    /// The time of the creation of the set, in seconds since 1970.
    #[must_use]
    pub fn created_at(&self) -> u64 {
        self.created
    }
}

/// A set of models that can be replaced at runtime. Running requests keep the previous set.
pub struct ModelTable(RwLock<Arc<ServedModels>>);

impl ModelTable {
    /// A table with `models`.
    #[must_use]
    pub fn new(models: ServedModels) -> Self {
        Self(RwLock::new(Arc::new(models)))
    }

    /// The current models.
    #[must_use]
    pub fn current(&self) -> Arc<ServedModels> {
        sync::read(&self.0).clone()
    }

    /// Replaces the models for later requests.
    pub fn replace(&self, models: ServedModels) {
        *sync::write(&self.0) = Arc::new(models);
    }
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
