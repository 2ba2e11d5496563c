//! Where plugins come from: the built-in ones, folders, a path. A file that changes replaces what a name
//! stands for.
//!
//! Invariant: a slot holds a plugin that was loaded; a newer file that does not load changes nothing.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tightwad_core::{hexadecimal, sync};

use crate::contract;
use crate::counts::CallCounts;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::kind::Kind;
use crate::loaded::Loaded;
use crate::slot::Slot;
use crate::world::World;

/// A slot that follows its file.
#[async_trait]
trait Follow: Send + Sync {
    /// Loads the file again where it changed; false when nobody uses the slot any more.
    async fn follow(&self, library: &Library) -> bool;

    /// The plugin's label, and what its calls took; `None` when nobody uses the slot any more.
    fn counts(&self) -> Option<(String, Arc<CallCounts>)>;
}

struct Followed<P> {
    slot: Weak<Slot<P>>,
    pin: Option<String>,
}

#[async_trait]
impl<P: Loaded> Follow for Followed<P> {
    async fn follow(&self, library: &Library) -> bool {
        let Some(slot) = self.slot.upgrade() else { return false };
        let name = slot.name();
        let newer = async {
            let wasm = library.find(name, P::WORLD).await?;
            if hexadecimal(&Sha256::digest(&wasm)) == slot.current().sha256() {
                return Ok(());
            }
            let plugin: P = library.checked(name, &wasm, self.pin.as_deref()).await?;
            tracing::info!(
                plugin = name,
                sha256 = plugin.sha256(),
                "replaced; requests that run keep the old one"
            );
            plugin.identity().inherit(slot.current().identity());
            slot.replace(plugin);
            Ok::<(), PluginError>(())
        };
        if let Err(error) = newer.await {
            tracing::error!("{error}; the plugin that was loaded goes on");
        }
        true
    }

    fn counts(&self) -> Option<(String, Arc<CallCounts>)> {
        let plugin = self.slot.upgrade()?.current();
        Some((plugin.label().to_owned(), plugin.identity().counts().clone()))
    }
}

/// Finds plugins by name.
pub struct Library {
    engine: Arc<PluginEngine>,
    kinds: &'static [Kind],
    folders: Vec<PathBuf>,
    followed: Mutex<Vec<Arc<dyn Follow>>>,
}

impl Library {
    /// Plugins of `kinds`. Looks into `folders` first, in order, so that a user's file replaces a built-in plugin.
    #[must_use]
    pub fn new(engine: Arc<PluginEngine>, kinds: &'static [Kind], folders: Vec<PathBuf>) -> Self {
        Self { engine, kinds, folders, followed: Mutex::default() }
    }

    /// Where files are looked for, in order.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The kinds of plugins that it has.
    #[must_use]
    pub fn kinds(&self) -> &'static [Kind] {
        self.kinds
    }

    /// The engine, for its counters.
    #[must_use]
    pub fn engine(&self) -> &Arc<PluginEngine> {
        &self.engine
    }

    /// Loads the plugin `name`: a path that ends in `.wasm`, a file of a folder, or a built-in. `pin` is the
    /// SHA-256 that it must have.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when there is none, or it does not load.
    pub async fn load<P: Loaded>(&self, name: &str, pin: Option<&str>) -> Result<Arc<Slot<P>>, PluginError> {
        let wasm = self.find(name, P::WORLD).await?;
        let slot = Arc::new(Slot::new(name, self.checked::<P>(name, &wasm, pin).await?));
        let followed = Followed { slot: Arc::downgrade(&slot), pin: pin.map(str::to_owned) };
        sync::lock(&self.followed).push(Arc::new(followed));
        Ok(slot)
    }

    /// What the calls of every plugin in use took, by its label.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, Arc<CallCounts>)> {
        self.all().iter().filter_map(|one| one.counts()).collect()
    }

    fn all(&self) -> Vec<Arc<dyn Follow>> {
        sync::lock(&self.followed).clone()
    }

    /// Loads again what is in use and changed.
    pub async fn refresh(&self) {
        let all = self.all();
        for one in all {
            if !one.follow(self).await {
                let mut followed = sync::lock(&self.followed);
                followed.retain(|other| !Arc::ptr_eq(other, &one));
            }
        }
    }

    async fn checked<P: Loaded>(&self, name: &str, wasm: &[u8], pin: Option<&str>) -> Result<P, PluginError> {
        let found = hexadecimal(&Sha256::digest(wasm));
        if let Some(wanted) = pin.filter(|wanted| !wanted.eq_ignore_ascii_case(&found)) {
            return Err(PluginError::Pinned { plugin: name.to_owned(), found, wanted: wanted.to_owned() });
        }
        let compiled = contract::compile(&self.engine, name, wasm, &[P::WORLD]).await?;
        P::link(&self.engine, name, &compiled).await
    }

    /// The bytes of a plugin.
    async fn find(&self, name: &str, world: World) -> Result<Cow<'static, [u8]>, PluginError> {
        if Path::new(name).extension().is_some_and(|extension| extension == "wasm") {
            return read(name, Path::new(name)).await;
        }
        let known = || self.kinds.iter().filter(|kind| kind.world == world).flat_map(|kind| kind.built_in);
        let built_in = known().find(|(own, _)| *own == name);
        let in_folder = self.folders.iter().map(|folder| folder.join(format!("{name}.wasm")));
        if let Some(path) = in_folder.into_iter().find(|path| path.exists()) {
            let wasm = read(name, &path).await?;
            // A policy may be called as a mode is, and does not take its place.
            if built_in.is_none() || !self.is_other(name, &wasm, world).await {
                return Ok(wasm);
            }
        }
        match built_in {
            Some((_, wasm)) => Ok(Cow::Borrowed(wasm)),
            None => {
                let known: Vec<&str> = known().map(|(name, _)| *name).collect();
                let known = if known.is_empty() { "none of this kind".to_owned() } else { known.join(", ") };
                Err(PluginError::Unknown { plugin: name.to_owned(), known })
            }
        }
    }

    /// True for a component that is in order, and of another world than `wanted`.
    async fn is_other(&self, name: &str, wasm: &[u8], wanted: World) -> bool {
        let worlds: Vec<World> = self.kinds.iter().map(|kind| kind.world).collect();
        let compiled = contract::compile(&self.engine, name, wasm, &worlds).await;
        compiled.is_ok_and(|compiled| compiled.world != wanted)
    }
}

pub(crate) async fn read(name: &str, path: &Path) -> Result<Cow<'static, [u8]>, PluginError> {
    let wasm = tokio::fs::read(path).await.map_err(|error| PluginError::Unreadable {
        plugin: name.to_owned(),
        path: path.display().to_string(),
        reason: error.to_string(),
    })?;
    Ok(Cow::Owned(wasm))
}
