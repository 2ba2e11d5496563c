//! Where plugins come from: the built-in ones, a folder, a path.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{PlacementPlugin, Plugin, PluginEngine, PluginError};

/// Names and bytes.
type BuiltIn = [(&'static str, &'static [u8])];

/// The built-in modes, loaded exactly as a file is.
const MODES: &BuiltIn = &[("speculation", include_bytes!("../../../../plugins/dist/speculation.wasm"))];

/// The built-in pooling policies.
const PLACEMENTS: &BuiltIn = &[("pooling", include_bytes!("../../../../plugins/dist/pooling.wasm"))];

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

    /// Loads the mode `name`: a path that ends in `.wasm`, a file of the folder, or a built-in.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when there is none, or it does not load.
    pub async fn load(&self, name: &str) -> Result<Plugin, PluginError> {
        Plugin::load(&self.engine, name, &self.find(name, MODES).await?).await
    }

    /// Loads the pooling policy `name`, found in the same way; the built-in one is `pooling`.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when there is none, or it does not load.
    pub async fn placement(&self, name: &str) -> Result<PlacementPlugin, PluginError> {
        PlacementPlugin::load(&self.engine, name, &self.find(name, PLACEMENTS).await?).await
    }

    /// The bytes of a plugin.
    async fn find(&self, name: &str, built_in: &BuiltIn) -> Result<Cow<'static, [u8]>, PluginError> {
        if Path::new(name).extension().is_some_and(|extension| extension == "wasm") {
            return read(name, Path::new(name)).await;
        }
        let in_folder = self.folder.as_ref().map(|folder| folder.join(format!("{name}.wasm")));
        if let Some(path) = in_folder.filter(|path| path.exists()) {
            return read(name, &path).await;
        }
        match built_in.iter().find(|(own, _)| *own == name) {
            Some((_, wasm)) => Ok(Cow::Borrowed(wasm)),
            None => {
                let known: Vec<&str> = built_in.iter().map(|(name, _)| *name).collect();
                Err(PluginError::Unknown { plugin: name.to_owned(), known: known.join(", ") })
            }
        }
    }
}

async fn read(name: &str, path: &Path) -> Result<Cow<'static, [u8]>, PluginError> {
    tracing::info!(plugin = name, path = %path.display(), "loading a plugin from a file");
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
    use crate::plugin::Limits;
    use crate::types::pool::{Layer, Machine, Plan, Refusal, Shape, Share, Shortage};

    fn dist(name: &str) -> String {
        format!("{}/../../plugins/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
    }

    fn library(folder: Option<PathBuf>) -> Library {
        Library::new(Arc::new(PluginEngine::new(None, Limits::default()).unwrap()), folder)
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
        let policy = library(None).placement("pooling").await.unwrap();
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
        let policy = library(None).placement("pooling").await.unwrap();
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
        let policy = library(None).placement(&dist("pooling")).await.unwrap();
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
        let error = library(None).placement(&dist("speculation")).await.err().unwrap().to_string();
        assert!(error.contains("does not export the interface `pooling`"), "{error}");
        let error = library(None).load(&dist("pooling")).await.err().unwrap().to_string();
        assert!(error.contains("does not export the interface `mode`"), "{error}");
        let error = library(None).placement("speculation").await.err().unwrap().to_string();
        assert!(error.contains("built in are pooling"), "{error}");
    }

    #[tokio::test]
    async fn a_file_in_the_plugins_folder_replaces_the_built_in_policy() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pooling.wasm"), "this is text").unwrap();
        let error = library(Some(folder.path().to_owned())).placement("pooling").await.err().unwrap();
        assert!(matches!(error, PluginError::NotComponent { .. }), "{error}");
    }
}
