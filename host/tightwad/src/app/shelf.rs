//! The plugins folders of a running host: what lies there, and what changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tightwad_core::{sync, user_cache, user_data};
use tightwad_modes::KINDS;
use tightwad_sandbox::{CallCounts, Library, Limits, Listed, PluginEngine, list};

use crate::app::watch;
use crate::app::watch::folder_of;

/// The plugins: built-in ones, and those of `folder`; without one, of the folder `plugins` beside the
/// `script`, and of the user's.
pub(crate) fn library(folder: Option<&Path>, script: Option<&Path>) -> Result<Arc<Library>> {
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        bail!("--plugins {}: there is no such folder", folder.display());
    }
    let folders = match folder {
        Some(folder) => vec![folder.to_owned()],
        None => usual(script),
    };
    let compiled = user_cache().map(|cache| cache.join("components"));
    let engine = PluginEngine::new(compiled.as_deref(), Limits::default());
    let engine = engine.map_err(|error| anyhow::anyhow!("cannot start the plugin engine: {error:#}"))?;
    Ok(Arc::new(Library::new(Arc::new(engine), KINDS, folders)))
}

/// The user's own folder is made, so that something can be dropped there later.
fn usual(script: Option<&Path>) -> Vec<PathBuf> {
    let own = user_data().map(|data| data.join("plugins"));
    let may_be_made =
        |folder: &PathBuf| folder.is_dir() || (script.is_some() && std::fs::create_dir_all(folder).is_ok());
    let made = own.filter(may_be_made);
    let beside = script.map(|script| folder_of(script).join("plugins")).filter(|folder| folder.is_dir());
    beside.into_iter().chain(made).collect()
}

/// What the folders hold, kept up to date.
pub(crate) struct Shelf {
    library: Arc<Library>,
    listed: RwLock<Vec<Listed>>,
}

impl Shelf {
    /// Looks into the folders; bad files are reported.
    pub(crate) async fn open(library: Arc<Library>) -> Arc<Self> {
        let shelf = Arc::new(Self { library, listed: RwLock::default() });
        shelf.look().await;
        shelf
    }

    /// Every plugin, or what is wrong with it.
    pub(crate) fn plugins(&self) -> Vec<Value> {
        let listed = sync::read(&self.listed);
        listed.iter().map(shown).collect()
    }

    /// Components that are instantiated now.
    pub(crate) fn instances(&self) -> usize {
        self.library.engine().instances()
    }

    /// What the calls of every plugin in use took.
    pub(crate) fn counts(&self) -> Vec<(String, Arc<CallCounts>)> {
        self.library.counts()
    }

    /// Follows the folders until the end.
    pub(crate) async fn follow(self: Arc<Self>) {
        let folders: Vec<&Path> = self.library.folders().iter().map(PathBuf::as_path).collect();
        if folders.is_empty() {
            return;
        }
        match watch::watch(folders, "wasm") {
            Ok(mut changes) => {
                while changes.next().await {
                    // What is in use comes first.
                    self.library.refresh().await;
                    self.look().await;
                }
            }
            Err(error) => tracing::warn!(%error, "cannot watch the plugins folders: restart to change them"),
        }
    }

    async fn look(&self) {
        let before = sync::read(&self.listed).clone();
        let found = list(&self.library, &before).await;
        for one in found.iter().filter(|one| !before.contains(one)) {
            match one {
                Ok(plugin) if plugin.path.is_some() => {
                    tracing::info!(
                        plugin = plugin.name,
                        label = plugin.label,
                        sha256 = plugin.sha256,
                        "ready"
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::error!("{error}"),
            }
        }
        *sync::write(&self.listed) = found;
    }
}

/// A listed plugin as JSON.
pub(crate) fn shown(listed: &Listed) -> Value {
    match listed {
        Ok(plugin) => json!(plugin),
        Err(error) => json!({"error": error.to_string()}),
    }
}
