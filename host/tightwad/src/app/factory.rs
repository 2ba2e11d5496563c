//! Makes what scripts ask for.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{Fallback, Lookup, PoolSpec, PromptReader, SharedBackend, sync};
use tightwad_engine::pool::PoolConfig;
use tightwad_engine::{Engine, EngineConfig, Llama, LoadError, Vocabulary, Weights};
use tightwad_modes::swarm::Pulled;
use tightwad_modes::{
    Consensus, Gate, GateParts, PlacementPlugin, PolicyAtWork, ReviewCache, Speculation, SwarmPlugin,
};
use tightwad_net::{Found, discover};
use tightwad_node::Node;
use tightwad_pool::{Pooled, Pools};
use tightwad_remote::{TextServer, TextServerSpec, Verification};
use tightwad_sandbox::{Library, Loaded, Slot};
use tightwad_script::{
    ConsensusSpec, Factory, FactoryError, GateSpec, LentSpec, LookupSpec, ModelSpec, PluginSpec,
    SpeculationSpec, SwarmSource, check_fallback,
};
use tightwad_swarm::net::Seeding;

use crate::app::gauges::Observed;
use crate::app::pulls::{Pulls, pulled};

/// Tokens that a lookup must match when the script does not say.
const MIN_MATCH: u32 = 2;

/// Loads models and plugins. A model that is loaded already, the same in everything, is shared:
/// reloading a script does not load its models again.
pub(crate) struct HostFactory {
    library: Arc<Library>,
    models: tokio::sync::Mutex<HashMap<ModelSpec, Weak<Llama>>>,
    pools: Arc<Pools>,
    pulls: Arc<Pulls>,
    observed: Arc<RwLock<Observed>>,
}

impl HostFactory {
    pub(crate) fn new(library: Arc<Library>) -> Self {
        Self {
            library,
            models: tokio::sync::Mutex::default(),
            pools: Arc::default(),
            pulls: Arc::default(),
            observed: Arc::default(),
        }
    }

    /// What was made so far, for metrics.
    pub(crate) fn observed(&self) -> Arc<RwLock<Observed>> {
        self.observed.clone()
    }

    /// The pools, for those who load and unload them.
    pub(crate) fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }

    /// The pulls that run.
    pub(crate) fn pulls(&self) -> &Arc<Pulls> {
        &self.pulls
    }

    /// The placement plugin `name`; default: the built-in one.
    pub(crate) async fn placement(&self, name: Option<&str>) -> Result<Arc<PlacementPlugin>, String> {
        let slot: Arc<Slot<PlacementPlugin>> = self.plugin(&built_in(name.unwrap_or("pooling"))).await?;
        Ok(slot.current())
    }

    /// The swarm plugin `name`.
    pub(crate) async fn swarm(&self, name: &str) -> Result<Arc<SwarmPlugin>, String> {
        let slot: Arc<Slot<SwarmPlugin>> = self.plugin(&built_in(name)).await?;
        Ok(slot.current())
    }

    /// Pulls what a script or a node names into `to`, where it is not there.
    pub(crate) async fn pull(
        &self,
        source: &SwarmSource,
        to: &Path,
        seeding: Option<Seeding>,
    ) -> Result<Pulled, String> {
        pulled((&self.swarm("swarm").await?, &self.pulls), source, to, seeding).await
    }

    /// A model whose layers lie on workers. This process ends when one of them is lost.
    pub(crate) async fn pooled(
        &self,
        spec: ModelSpec,
        pool: PoolConfig,
        progress: impl Fn(f32) + Send + 'static,
    ) -> Result<SharedBackend, String> {
        let load = move |path: &Path, config| {
            let weights = Weights::load_pooled(path, &pool, progress)?;
            Engine::start(weights, config)
        };
        let model = loaded(&spec, load).await?;
        self.observe(|observed| observed.models.push(Arc::downgrade(&model)));
        Ok(model)
    }

    async fn plugin<P: Loaded>(&self, plugin: &PluginSpec) -> Result<Arc<Slot<P>>, String> {
        let loaded = self.library.load(&plugin.name, plugin.sha256.as_deref()).await;
        loaded.map_err(|error| error.to_string())
    }

    /// The plugin that a script named, if it did.
    async fn named<P: Loaded>(&self, plugin: Option<&PluginSpec>) -> Result<Option<Arc<Slot<P>>>, String> {
        match plugin {
            Some(plugin) => self.plugin(plugin).await.map(Some),
            None => Ok(None),
        }
    }

    fn observe(&self, add: impl FnOnce(&mut Observed)) {
        add(&mut sync::write(&self.observed));
    }
}

#[async_trait]
impl Factory for HostFactory {
    async fn model(&self, spec: ModelSpec) -> Result<SharedBackend, FactoryError> {
        // Held while loading, so that a model is never loaded twice at once.
        let mut models = self.models.lock().await;
        if let Some(loaded) = models.get(&spec).and_then(Weak::upgrade) {
            return Ok(loaded);
        }
        let path = match &spec.swarm {
            Some(source) => self.pull(source, &spec.path, None).await?.path,
            None => spec.path.clone(),
        };
        let model = loaded(&ModelSpec { path, ..spec.clone() }, Engine::load).await?;
        models.retain(|_, model| model.strong_count() > 0);
        models.insert(spec, Arc::downgrade(&model));
        self.observe(|observed| observed.models.push(Arc::downgrade(&model)));
        Ok(model)
    }

    async fn lookup(&self, spec: LookupSpec) -> Result<SharedBackend, FactoryError> {
        let name = spec.name.unwrap_or_else(|| "lookup".to_owned());
        Ok(Arc::new(Lookup::new(&name, spec.min_match.unwrap_or(MIN_MATCH))))
    }

    async fn node(&self, spec: LentSpec) -> Result<SharedBackend, FactoryError> {
        let node = Arc::new(Node::connect(&spec.spec).await.map_err(refused)?);
        self.observe(|observed| observed.nodes.push(Arc::downgrade(&node)));
        let node: SharedBackend = node;
        if spec.fallback.is_empty() {
            return Ok(node);
        }
        check_fallback(&node, &spec.fallback)?;
        Ok(Arc::new(Fallback::new(node, spec.fallback)))
    }

    async fn text_server(&self, spec: TextServerSpec) -> Result<SharedBackend, FactoryError> {
        let server = TextServer::connect(&spec, vocabulary(&spec.verify).await?).await.map_err(refused)?;
        if spec.verify == Verification::Replay {
            tracing::warn!(
                server = spec.url,
                "verify = \"replay\" lets this server generate freely and compares: exact, and never faster than the server alone"
            );
        }
        Ok(Arc::new(server))
    }

    async fn discover(&self, wait: Duration) -> Result<Vec<Found>, FactoryError> {
        discover(wait).await.map_err(refused)
    }

    async fn pooling(&self, spec: PoolSpec) -> Result<SharedBackend, FactoryError> {
        if let Some(pool) = self.pools.find(&spec) {
            return Ok(Arc::new(Pooled(pool)));
        }
        let plugin = self.placement(spec.plugin.as_deref()).await?;
        let pool = self.pools.start(spec, plugin).await.map_err(refused)?;
        Ok(Arc::new(Pooled(pool)))
    }

    async fn speculation(&self, spec: SpeculationSpec) -> Result<SharedBackend, FactoryError> {
        let plugin = self.plugin(&spec.plugin.unwrap_or_else(|| built_in("speculation"))).await?;
        let settings = serde_json::Value::Object(spec.settings).to_string();
        let mode = Speculation::new(spec.target, spec.drafters, plugin, settings).map_err(refused)?;
        let mode = Arc::new(mode);
        self.observe(|observed| observed.modes.push(Arc::downgrade(&mode)));
        Ok(mode)
    }

    async fn gate(&self, spec: GateSpec) -> Result<SharedBackend, FactoryError> {
        let plugin = self.plugin(&built_in(spec.mode.as_deref().unwrap_or("gate"))).await?;
        let policy = self.named(spec.plugin.as_ref()).await?;
        let settings = serde_json::Value::Object(spec.settings).to_string();
        let gate = Arc::new(Gate::new(GateParts {
            fleet: spec.fleet,
            reviewer: spec.reviewer,
            ways: spec.ways,
            prompt: spec.prompt,
            settings,
            plugin,
            policy,
            on_lost: spec.on_lost,
            cache: spec.cache.map(|spec| Arc::new(ReviewCache::new(spec))),
        }));
        self.observe(|observed| observed.gates.push(Arc::downgrade(&gate)));
        Ok(gate)
    }

    async fn consensus(&self, spec: ConsensusSpec) -> Result<SharedBackend, FactoryError> {
        let plugin = self.plugin(&built_in(spec.mode.as_deref().unwrap_or("consensus"))).await?;
        let policy = self.named(spec.plugin.as_ref()).await?;
        let policy = policy.map(|slot| PolicyAtWork::new(slot, spec.on_failure));
        let settings = serde_json::Value::Object(spec.settings).to_string();
        let mode = Arc::new(Consensus::new(spec.target, spec.drafters, plugin, policy, settings));
        self.observe(|observed| observed.consensus.push(Arc::downgrade(&mode)));
        Ok(mode)
    }
}

/// The error as the script's author reads it.
fn refused(error: impl std::error::Error) -> FactoryError {
    FactoryError::from(error.to_string())
}

/// The vocabulary that a text server verifies with, where it needs one.
async fn vocabulary(verify: &Verification) -> Result<Option<Arc<dyn PromptReader>>, String> {
    let Verification::Logprobs(path) = verify.clone() else { return Ok(None) };
    let loaded = tokio::task::spawn_blocking(move || Vocabulary::load(&path)).await;
    let vocabulary = loaded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(vocabulary)))
}

/// Loads a model off the runtime's threads.
async fn loaded(
    spec: &ModelSpec,
    load: impl FnOnce(&Path, EngineConfig) -> Result<Engine, LoadError> + Send + 'static,
) -> Result<Arc<Llama>, String> {
    let name = spec.name.clone().unwrap_or_else(|| stem(&spec.path));
    let (path, config) = (spec.path.clone(), config(spec));
    let start = std::time::Instant::now();
    let loading = tokio::task::spawn_blocking(move || load(&path, config));
    let engine = loading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    tracing::info!(
        model = name,
        seconds = start.elapsed().as_secs_f32(),
        context = engine.context(),
        slots = engine.slots(),
        tie_threshold = engine.tie_threshold(),
        "loaded"
    );
    Ok(Arc::new(Llama::new(&name, engine)))
}

/// A plugin by its name alone, as the built-in ones are named.
fn built_in(name: &str) -> PluginSpec {
    PluginSpec { name: name.to_owned(), sha256: None }
}

fn config(spec: &ModelSpec) -> EngineConfig {
    let default = EngineConfig::default();
    EngineConfig {
        context: spec.context.unwrap_or(default.context),
        slots: spec.slots.unwrap_or(default.slots),
        queue: spec.queue.map_or(default.queue, |queue| queue as usize),
        threads: spec.threads.unwrap_or(default.threads),
        gpu_layers: spec.gpu_layers.unwrap_or(default.gpu_layers),
        ..default
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
