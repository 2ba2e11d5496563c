//! Which backend answers for which model.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tightwad_core::{SharedBackend, sync};

/// Backends by the names that clients use.
pub struct Routes {
    backends: BTreeMap<String, SharedBackend>,
    created: u64,
}

impl Routes {
    /// Routes from names to backends.
    #[must_use]
    pub fn new(backends: impl IntoIterator<Item = (String, SharedBackend)>) -> Self {
        Self { backends: backends.into_iter().collect(), created: unix_seconds() }
    }

    /// The backend that answers for `model`.
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

    /// When these routes were made, in seconds since 1970.
    #[must_use]
    pub fn created(&self) -> u64 {
        self.created
    }
}

/// Routes that can be replaced while requests run on the ones before.
pub struct RouteTable(RwLock<Arc<Routes>>);

impl RouteTable {
    /// A table of `routes`.
    #[must_use]
    pub fn new(routes: Routes) -> Self {
        Self(RwLock::new(Arc::new(routes)))
    }

    /// The routes of this moment.
    #[must_use]
    pub fn current(&self) -> Arc<Routes> {
        sync::read(&self.0).clone()
    }

    /// Replaces the routes for requests that are still to come.
    pub fn replace(&self, routes: Routes) {
        *sync::write(&self.0) = Arc::new(routes);
    }
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
