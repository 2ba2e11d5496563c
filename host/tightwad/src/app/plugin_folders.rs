//! The plugin folders of a running host: their files, and changes to them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tightwad_core::{WatchTiming, WatchedFiles, sync, user_cache_dir, user_data_dir};
use tightwad_modes::KINDS;
use tightwad_sandbox::{CallCounts, Library, Limits, ListedPlugin, PluginEngine, list};

/// The library of built-in plugins and of plugins in `folder`. Without a `folder`, it uses `plugins` beside the `script`
/// and the user's folder.
pub(crate) fn library(folder: Option<&Path>, script: Option<&Path>) -> Result<Arc<Library>> {
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        bail!("--plugins-dir {}: there is no such folder", folder.display());
    }
    let folders = match folder {
        Some(folder) => vec![folder.to_owned()],
        None => default_folders(script),
    };
    let compiled = user_cache_dir().map(|cache| cache.join("components"));
    let engine = PluginEngine::new(compiled.as_deref(), Limits::default());
    let engine = engine.map_err(|error| anyhow::anyhow!("cannot start the plugin engine: {error:#}"))?;
    Ok(Arc::new(Library::new(Arc::new(engine), KINDS, folders)))
}

/// The default folders. A command that serves a script creates the user's folder, so that users can
/// add files later.
fn default_folders(script: Option<&Path>) -> Vec<PathBuf> {
    let user_folder = user_data_dir().map(|data| data.join("plugins"));
    let exists_or_is_created =
        |folder: &PathBuf| folder.is_dir() || (script.is_some() && std::fs::create_dir_all(folder).is_ok());
    let user_folder = user_folder.filter(exists_or_is_created);
    let script_folder =
        script.map(|script| script.with_file_name("plugins")).filter(|folder| folder.is_dir());
    script_folder.into_iter().chain(user_folder).collect()
}

/// The plugins of the folders. [`follow`](Self::follow) keeps the list current.
pub(crate) struct PluginFolders {
    library: Arc<Library>,
    files: Arc<WatchedFiles>,
    listed: RwLock<Vec<ListedPlugin>>,
}

impl PluginFolders {
    /// Reads the folders. Invalid files are logged.
    pub(crate) async fn open(library: Arc<Library>) -> Arc<Self> {
        let files = Arc::new(WatchedFiles::in_folders(library.folders().to_vec(), "wasm"));
        files.record_folders();
        let folders = Arc::new(Self { library, files, listed: RwLock::default() });
        folders.read().await;
        folders
    }

    /// Every plugin, or its error, as JSON.
    pub(crate) fn plugins(&self) -> Vec<Value> {
        let listed = sync::read(&self.listed);
        listed.iter().map(plugin_json).collect()
    }

    /// The number of live instances.
    pub(crate) fn instances(&self) -> usize {
        self.library.engine().instances()
    }

    /// The call counts of every plugin in use, each with its label.
    pub(crate) fn counts(&self) -> Vec<(String, Arc<CallCounts>)> {
        self.library.counts()
    }

    /// Watches the folders, and applies each change.
    pub(crate) async fn follow(self: Arc<Self>) {
        loop {
            self.files.changed(WatchTiming::default()).await;
            self.files.record_folders();
            // Plugins in use are replaced before the list is read.
            self.library.refresh().await;
            self.read().await;
        }
    }

    async fn read(&self) {
        let previous = sync::read(&self.listed).clone();
        let plugins = list(&self.library, &previous).await;
        for listed in plugins.iter().filter(|listed| !previous.contains(listed)) {
            match listed {
                Ok(plugin) if plugin.path.is_some() => {
                    tracing::info!(
                        plugin = plugin.name,
                        label = plugin.label,
                        sha256 = plugin.sha256,
                        replaces_built_in = plugin.replaces_built_in,
                        "ready"
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::error!("{error}"),
            }
        }
        *sync::write(&self.listed) = plugins;
    }
}

/// A listed plugin as JSON.
pub(crate) fn plugin_json(listed: &ListedPlugin) -> Value {
    match listed {
        Ok(plugin) => json!(plugin),
        Err(error) => json!({"error": error.to_string()}),
    }
}
