//! A plugin in use. A newer file can replace it while requests run.

use std::sync::{Arc, RwLock};

use tightwad_core::sync;

/// The current plugin of a name. A running request keeps the plugin that it began with.
pub struct ReloadablePlugin<P> {
    name: String,
    current: RwLock<Arc<P>>,
}

impl<P> ReloadablePlugin<P> {
    pub(crate) fn new(name: &str, plugin: P) -> Self {
        Self { name: name.to_owned(), current: RwLock::new(Arc::new(plugin)) }
    }

    /// The name that the script uses.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The plugin for new requests.
    #[must_use]
    pub fn current(&self) -> Arc<P> {
        sync::read(&self.current).clone()
    }

    pub(crate) fn replace(&self, plugin: P) {
        *sync::write(&self.current) = Arc::new(plugin);
    }
}
