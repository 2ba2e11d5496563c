//! Where plugins come from: the built-in ones, folders, a path. A file that changes replaces what a name
//! stands for.
//!
//! Invariant: a slot holds a plugin that was loaded; a newer file that does not load changes nothing.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::contract::{self, Compiled, Kind};
use super::counts::CallCounts;
use super::health::Health;
use super::linked::Identity;
use super::{PluginEngine, PluginError, Slot};
use crate::types::hexadecimal;

/// The built-in plugins, loaded exactly as a file is: kind, name, bytes.
pub(super) const BUILT_IN: [(Kind, &str, &[u8]); 5] = [
    (Kind::Mode, "speculation", include_bytes!("../../../../plugins/dist/speculation.wasm")),
    (Kind::Mode, "consensus", include_bytes!("../../../../plugins/dist/consensus.wasm")),
    (Kind::Gate, "gate", include_bytes!("../../../../plugins/dist/gate.wasm")),
    (Kind::Placement, "pooling", include_bytes!("../../../../plugins/dist/pooling.wasm")),
    (Kind::Swarm, "swarm", include_bytes!("../../../../plugins/dist/swarm.wasm")),
];

/// A plugin of one kind.
#[async_trait]
pub trait Loaded: Sized + Send + Sync + 'static {
    /// What it is for.
    const KIND: Kind;

    /// Links what was compiled, and lets it introduce itself; until then errors call it `name`.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when it does not fit the contract, or cannot describe itself.
    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError>;

    /// Who it is.
    fn identity(&self) -> &Identity;

    /// Name and version, as errors and reports show them.
    fn label(&self) -> &str {
        &self.identity().label
    }

    /// SHA-256 of the component, in hexadecimal.
    fn sha256(&self) -> &str {
        &self.identity().sha256
    }

    /// Label and digest, as reports list plugins.
    fn entry(&self) -> (String, String) {
        (self.label().to_owned(), self.sha256().to_owned())
    }

    /// Whether it may be asked, or has failed too often of late.
    fn health(&self) -> &Health {
        &self.identity().health
    }
}

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
            let wasm = library.find(name, P::KIND).await?;
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
    pub(super) engine: Arc<PluginEngine>,
    folders: Vec<PathBuf>,
    followed: Mutex<Vec<Arc<dyn Follow>>>,
}

impl Library {
    /// Looks into `folders` first, in order, so that a user's file replaces a built-in plugin.
    #[must_use]
    pub fn new(engine: Arc<PluginEngine>, folders: Vec<PathBuf>) -> Self {
        Self { engine, folders, followed: Mutex::default() }
    }

    /// Where files are looked for, in order.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
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
        let wasm = self.find(name, P::KIND).await?;
        let slot = Arc::new(Slot::new(name, self.checked::<P>(name, &wasm, pin).await?));
        let followed = Followed { slot: Arc::downgrade(&slot), pin: pin.map(str::to_owned) };
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(followed));
        Ok(slot)
    }

    /// What the calls of every plugin in use took, by its label.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, Arc<CallCounts>)> {
        self.all().iter().filter_map(|one| one.counts()).collect()
    }

    fn all(&self) -> Vec<Arc<dyn Follow>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Loads again what is in use and changed.
    pub async fn refresh(&self) {
        let all = self.all();
        for one in all {
            if !one.follow(self).await {
                let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
                followed.retain(|other| !Arc::ptr_eq(other, &one));
            }
        }
    }

    async fn checked<P: Loaded>(&self, name: &str, wasm: &[u8], pin: Option<&str>) -> Result<P, PluginError> {
        let found = hexadecimal(&Sha256::digest(wasm));
        if let Some(wanted) = pin.filter(|wanted| !wanted.eq_ignore_ascii_case(&found)) {
            return Err(PluginError::Pinned { plugin: name.to_owned(), found, wanted: wanted.to_owned() });
        }
        let compiled = contract::compile(&self.engine, name, wasm, Some(P::KIND)).await?;
        P::link(&self.engine, name, &compiled).await
    }

    /// The bytes of a plugin.
    async fn find(&self, name: &str, kind: Kind) -> Result<Cow<'static, [u8]>, PluginError> {
        if Path::new(name).extension().is_some_and(|extension| extension == "wasm") {
            return read(name, Path::new(name)).await;
        }
        let built_in = BUILT_IN.iter().find(|(of, own, _)| *own == name && *of == kind);
        let in_folder = self.folders.iter().map(|folder| folder.join(format!("{name}.wasm")));
        if let Some(path) = in_folder.into_iter().find(|path| path.exists()) {
            let wasm = read(name, &path).await?;
            // A policy may be called as a mode is, and does not take its place.
            let other = built_in.is_some() && contract::is_other(&self.engine, name, &wasm, kind).await;
            if !other {
                return Ok(wasm);
            }
        }
        match built_in {
            Some((_, _, wasm)) => Ok(Cow::Borrowed(wasm)),
            None => {
                let known = BUILT_IN.iter().filter(|(of, ..)| *of == kind).map(|(_, name, _)| *name);
                let known: Vec<&str> = known.collect();
                let known = if known.is_empty() { "none of this kind".to_owned() } else { known.join(", ") };
                Err(PluginError::Unknown { plugin: name.to_owned(), known })
            }
        }
    }
}

pub(super) async fn read(name: &str, path: &Path) -> Result<Cow<'static, [u8]>, PluginError> {
    let wasm = tokio::fs::read(path).await.map_err(|error| PluginError::Unreadable {
        plugin: name.to_owned(),
        path: path.display().to_string(),
        reason: error.to_string(),
    })?;
    Ok(Cow::Owned(wasm))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::plugin::{Limits, PlacementPlugin, Plugin};
    use crate::types::pool::{Layer, Machine, Plan, Refusal, Shape, Share, Shortage};

    fn dist(name: &str) -> String {
        format!("{}/../../plugins/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
    }

    fn library(folder: Option<PathBuf>) -> Library {
        let engine = PluginEngine::new(None, Limits::default()).unwrap();
        Library::new(Arc::new(engine), folder.into_iter().collect())
    }

    async fn placement(folder: Option<PathBuf>, name: &str) -> Result<Arc<PlacementPlugin>, PluginError> {
        library(folder).load(name, None).await.map(|slot: Arc<Slot<PlacementPlugin>>| slot.current())
    }

    fn machine(memory: u64, speed: u64, here: bool) -> Machine {
        let name = if here { "here" } else { "worker" }.to_owned();
        let (bandwidth, round_trip, max_layers) = (100_000_000, 200_000, u32::MAX);
        Machine { name, memory, speed, bandwidth, round_trip, here, max_layers }
    }

    fn shape(layers: usize) -> Shape {
        let layers = vec![Layer { weights: 90_000_000, cache: 10_000_000 }; layers];
        let (logits, activations) = (600_000, 16_000);
        Shape { layers, output: 100_000_000, logits, activations, scratch: 0, head_scratch: 0 }
    }

    #[tokio::test]
    async fn the_built_in_policy_places_a_model_and_says_what_is_missing() {
        let policy = placement(None, "pooling").await.unwrap();
        assert_eq!(policy.label(), "pooling@0.1.0");
        assert_eq!(policy.sha256().len(), 64);
        let machines =
            [machine(600_000_000, 9_000_000_000, true), machine(500_000_000, 4_500_000_000, false)];
        let plan = policy.place(&shape(8), &machines, None).await.unwrap().unwrap();
        // The host is faster: as much as it holds.
        assert_eq!(plan.shares, [Share { machine: 0, layers: 5 }, Share { machine: 1, layers: 3 }]);
        assert!(plan.output_here);
        // 550 MB at 9 GB/s, 270 MB at 4.5 GB/s, and the network.
        assert_eq!(plan.token, 61_111_111 + 60_000_000 + 200_000 + 320_000);
        let refusal = policy.place(&shape(12), &machines, None).await.unwrap();
        assert_eq!(refusal, Err(Refusal::TooBig(Shortage { missing: 200_000_000, fits: 11 })));
        let refusal = policy.place(&shape(12), &[], None).await.unwrap();
        assert!(matches!(refusal, Err(Refusal::Other(text)) if text.contains("no machine")));
    }

    #[tokio::test]
    async fn the_built_in_policy_stays_with_a_plan_that_is_nearly_as_good() {
        let policy = placement(None, "pooling").await.unwrap();
        let machines =
            [machine(600_000_000, 9_000_000_000, true), machine(500_000_000, 4_500_000_000, false)];
        let plan = |here: u32| Plan {
            shares: vec![Share { machine: 0, layers: here }, Share { machine: 1, layers: 8 - here }],
            output_here: true,
            token: 1,
        };
        let kept = policy.place(&shape(8), &machines, Some(&plan(4))).await.unwrap().unwrap();
        // 460 MB at 9 GB/s, 360 MB at 4.5 GB/s, and the network: 8 % more than the best plan.
        assert_eq!(kept, Plan { token: 51_111_111 + 80_000_000 + 200_000 + 320_000, ..plan(4) });
        // 16 % more.
        let left = policy.place(&shape(8), &machines, Some(&plan(3))).await.unwrap().unwrap();
        assert_eq!(left.shares, plan(5).shares);
        // A byte of logits more than the host has room for: the head moves.
        let shape = Shape { head_scratch: 1, ..shape(8) };
        let left = policy.place(&shape, &machines, Some(&plan(5))).await.unwrap().unwrap();
        assert_eq!((left.shares, left.output_here), (plan(6).shares, false));
    }

    #[tokio::test]
    async fn many_layers_on_many_machines_stay_far_from_the_limits() {
        let policy = placement(None, &dist("pooling")).await.unwrap();
        let mut machines = vec![machine(800_000_000, 9_000_000_000, true)];
        machines.extend((1..=16).map(|at| machine(400_000_000 + at * 77_000_000, at * 1_000_000_000, false)));
        for layers in [80, 200] {
            let start = Instant::now();
            let answer = policy.place(&shape(layers), &machines, None).await.unwrap();
            let took = start.elapsed();
            println!("{layers} layers: {took:?}");
            assert_eq!(answer.is_ok(), layers == 80);
            assert!(took < Duration::from_millis(200), "{layers} layers took {took:?}");
        }
    }

    #[tokio::test]
    async fn a_component_of_another_world_is_refused_by_what_it_lacks() {
        let error = placement(None, &dist("speculation")).await.err().unwrap().to_string();
        assert!(error.contains("does not export the interface `pooling`"), "{error}");
        let error = library(None).load::<Plugin>(&dist("pooling"), None).await.err().unwrap().to_string();
        assert!(error.contains("does not export the interface `mode`"), "{error}");
        let error = placement(None, "speculation").await.err().unwrap().to_string();
        assert!(error.contains("built in are pooling"), "{error}");
    }

    #[tokio::test]
    async fn a_file_in_the_plugins_folder_replaces_the_built_in_policy() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pooling.wasm"), "this is text").unwrap();
        let error = placement(Some(folder.path().to_owned()), "pooling").await.err().unwrap();
        assert!(matches!(error, PluginError::NotComponent { .. }), "{error}");
    }
}
