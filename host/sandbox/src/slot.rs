//! A plugin in use, which a newer file may replace while requests run.

use std::sync::{Arc, RwLock};

use tightwad_core::sync;

/// What a name stands for now. Requests that run keep what they began with.
pub struct Slot<P> {
    name: String,
    current: RwLock<Arc<P>>,
}

impl<P> Slot<P> {
    pub(crate) fn new(name: &str, plugin: P) -> Self {
        Self { name: name.to_owned(), current: RwLock::new(Arc::new(plugin)) }
    }

    /// The name that the script uses.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The plugin that new requests get.
    #[must_use]
    pub fn current(&self) -> Arc<P> {
        sync::read(&self.current).clone()
    }

    pub(crate) fn replace(&self, plugin: P) {
        *sync::write(&self.current) = Arc::new(plugin);
    }
}
