//! Finds plugins: built-in ones, files in folders, and files by path. Reloads a plugin when its file changes.
//!
//! Invariant: a [`ReloadablePlugin`] always holds a plugin that loaded. A newer file that does not load changes
//! nothing.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tightwad_core::{sync, to_hex};

use crate::contract;
use crate::counts::CallCounts;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::kind::Kind;
use crate::plugin::Plugin;
use crate::reloadable::ReloadablePlugin;
use crate::world::World;

/// A plugin in use, of any kind.
#[async_trait]
trait PluginInUse: Send + Sync {
    /// Loads the plugin again if its file changed. Returns false if the plugin is not in use anymore.
    async fn reload(&self, library: &Library) -> bool;

    /// The plugin's label and the counts of its calls. `None` if the plugin is not in use anymore.
    fn counts(&self) -> Option<(String, Arc<CallCounts>)>;
}

struct WeakPlugin<P> {
    plugin: Weak<ReloadablePlugin<P>>,
    expected_sha256: Option<String>,
}

#[async_trait]
impl<P: Plugin> PluginInUse for WeakPlugin<P> {
    async fn reload(&self, library: &Library) -> bool {
        let Some(reloadable) = self.plugin.upgrade() else { return false };
        let name = reloadable.name();
        let reloaded = async {
            let wasm = library.find(name, P::WORLD).await?;
            if to_hex(&Sha256::digest(&wasm)) == reloadable.current().sha256() {
                return Ok(());
            }
            let plugin: P = library.load_component(name, &wasm, self.expected_sha256.as_deref()).await?;
            tracing::info!(
                plugin = name,
                sha256 = plugin.sha256(),
                "replaced the plugin; running requests keep the previous one"
            );
            plugin.identity().inherit_counts(reloadable.current().identity());
            reloadable.replace(plugin);
            Ok::<(), PluginError>(())
        };
        if let Err(error) = reloaded.await {
            tracing::error!(plugin = name, %error, "the newer file does not load; the host keeps the previous plugin");
        }
        true
    }

    fn counts(&self) -> Option<(String, Arc<CallCounts>)> {
        let plugin = self.plugin.upgrade()?.current();
        Some((plugin.label().to_owned(), plugin.identity().counts().clone()))
    }
}

/// Finds plugins by name.
pub struct Library {
    engine: Arc<PluginEngine>,
    kinds: &'static [Kind],
    folders: Vec<PathBuf>,
    plugins: Mutex<Vec<Arc<dyn PluginInUse>>>,
}

impl Library {
    /// A library of plugins of `kinds`. The library searches `folders` first, in order, so a user's file replaces a
    /// built-in plugin.
    #[must_use]
    pub fn new(engine: Arc<PluginEngine>, kinds: &'static [Kind], folders: Vec<PathBuf>) -> Self {
        Self { engine, kinds, folders, plugins: Mutex::default() }
    }

    /// The folders, in the order of the search.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The kinds of plugins.
    #[must_use]
    pub fn kinds(&self) -> &'static [Kind] {
        self.kinds
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Arc<PluginEngine> {
        &self.engine
    }

    /// Loads the plugin `name`: a path that ends in `.wasm`, a file in a folder, or a built-in plugin.
    /// `expected_sha256` is the digest that the script requires.
    ///
    /// # Errors
    ///
    /// Returns [`PluginError`] if there is no such plugin, or if the plugin does not load.
    pub async fn load<P: Plugin>(
        &self,
        name: &str,
        expected_sha256: Option<&str>,
    ) -> Result<Arc<ReloadablePlugin<P>>, PluginError> {
        let wasm = self.find(name, P::WORLD).await?;
        let plugin: P = self.load_component(name, &wasm, expected_sha256).await?;
        let plugin = Arc::new(ReloadablePlugin::new(name, plugin));
        let weak = WeakPlugin {
            plugin: Arc::downgrade(&plugin),
            expected_sha256: expected_sha256.map(str::to_owned),
        };
        sync::lock(&self.plugins).push(Arc::new(weak));
        Ok(plugin)
    }

    /// The call counts of every plugin in use, each with the plugin's label.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, Arc<CallCounts>)> {
        self.plugins().iter().filter_map(|plugin| plugin.counts()).collect()
    }

    fn plugins(&self) -> Vec<Arc<dyn PluginInUse>> {
        sync::lock(&self.plugins).clone()
    }

    /// Reloads the plugins in use whose files changed.
    pub async fn refresh(&self) {
        let plugins = self.plugins();
        for plugin in plugins {
            if !plugin.reload(self).await {
                let mut plugins = sync::lock(&self.plugins);
                plugins.retain(|other| !Arc::ptr_eq(other, &plugin));
            }
        }
    }

    async fn load_component<P: Plugin>(
        &self,
        name: &str,
        wasm: &[u8],
        expected_sha256: Option<&str>,
    ) -> Result<P, PluginError> {
        let digest = to_hex(&Sha256::digest(wasm));
        if let Some(expected) = expected_sha256.filter(|expected| !expected.eq_ignore_ascii_case(&digest)) {
            let (plugin, expected) = (name.to_owned(), expected.to_owned());
            return Err(PluginError::DigestMismatch { plugin, found: digest, expected });
        }
        let compiled = contract::compile(&self.engine, name, wasm, &[P::WORLD]).await?;
        P::link(&self.engine, name, &compiled).await
    }

    /// Returns the bytes of the plugin `name` of `world`.
    async fn find(&self, name: &str, world: World) -> Result<Cow<'static, [u8]>, PluginError> {
        if Path::new(name).extension().is_some_and(|extension| extension == "wasm") {
            return read_file(name, Path::new(name)).await;
        }
        let built_ins =
            || self.kinds.iter().filter(|kind| kind.world == world).flat_map(|kind| kind.built_in);
        let built_in = built_ins().find(|(built_in_name, _)| *built_in_name == name);
        let in_folder = self.folders.iter().map(|folder| folder.join(format!("{name}.wasm")));
        if let Some(path) = in_folder.into_iter().find(|path| path.exists()) {
            let wasm = read_file(name, &path).await?;
            // A policy may have the name of a built-in driver. Such a file does not replace the driver.
            if built_in.is_none() || !self.is_of_other_world(name, &wasm, world).await {
                return Ok(wasm);
            }
        }
        match built_in {
            Some((_, wasm)) => Ok(Cow::Borrowed(wasm)),
            None => {
                let names: Vec<&str> = built_ins().map(|(name, _)| *name).collect();
                let built_in = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(PluginError::NotFound { plugin: name.to_owned(), built_in })
            }
        }
    }

    /// True for a valid component of a world other than `world`.
    async fn is_of_other_world(&self, name: &str, wasm: &[u8], world: World) -> bool {
        let worlds: Vec<World> = self.kinds.iter().map(|kind| kind.world).collect();
        let compiled = contract::compile(&self.engine, name, wasm, &worlds).await;
        compiled.is_ok_and(|compiled| compiled.world != world)
    }
}

pub(crate) async fn read_file(name: &str, path: &Path) -> Result<Cow<'static, [u8]>, PluginError> {
    let wasm = tokio::fs::read(path).await.map_err(|error| PluginError::Unreadable {
        plugin: name.to_owned(),
        path: path.display().to_string(),
        reason: error.to_string(),
    })?;
    Ok(Cow::Owned(wasm))
}
