//! Where plugins come from: the built-in ones, a folder, a path.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Plugin, PluginEngine, PluginError};

/// The built-in modes, loaded exactly as a file is.
const BUILT_IN: [(&str, &[u8]); 1] =
    [("speculation", include_bytes!("../../../../plugins/dist/speculation.wasm"))];

/// Finds plugins by name.
pub struct Library {
    engine: Arc<PluginEngine>,
    folder: Option<PathBuf>,
}

impl Library {
    /// Looks into `folder` first, so that a user's file replaces a built-in plugin.
    #[must_use]
    pub fn new(engine: Arc<PluginEngine>, folder: Option<PathBuf>) -> Self {
        Self { engine, folder }
    }

    /// Loads the plugin `name`: a path that ends in `.wasm`, a file of the folder, or a built-in.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when there is none, or it does not load.
    pub async fn load(&self, name: &str) -> Result<Plugin, PluginError> {
        if Path::new(name).extension().is_some_and(|extension| extension == "wasm") {
            return self.file(name, Path::new(name)).await;
        }
        let in_folder = self.folder.as_ref().map(|folder| folder.join(format!("{name}.wasm")));
        if let Some(path) = in_folder.filter(|path| path.exists()) {
            return self.file(name, &path).await;
        }
        match BUILT_IN.iter().find(|(own, _)| *own == name) {
            Some((_, wasm)) => Plugin::load(&self.engine, name, wasm).await,
            None => {
                let known: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                Err(PluginError::Unknown { plugin: name.to_owned(), known: known.join(", ") })
            }
        }
    }

    async fn file(&self, name: &str, path: &Path) -> Result<Plugin, PluginError> {
        tracing::info!(plugin = name, path = %path.display(), "loading a plugin from a file");
        let wasm = tokio::fs::read(path).await.map_err(|error| PluginError::Unreadable {
            plugin: name.to_owned(),
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        Plugin::load(&self.engine, name, &wasm).await
    }
}
