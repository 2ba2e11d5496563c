//! Creates backends for scripts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{
    Backend as _, Fallback, Lookup, PluginSpec, PoolSpec, PromptReader, SharedBackend, sync,
};
use tightwad_engine::pool::PoolConfig;
use tightwad_engine::{Engine, EngineConfig, Llama, LoadError, Vocabulary, Weights};
use tightwad_modes::swarm::PulledModel;
use tightwad_modes::{
    Consensus, Gate, GateParts, PiecePicker, PlacementPolicy, PolicyHandle, ReviewCache, Speculation,
};
use tightwad_net::{DiscoveredNode, discover_nodes};
use tightwad_node::Node;
use tightwad_pool::{PoolBackend, Pools};
use tightwad_remote::{TextServer, TextServerSpec, Verification};
use tightwad_sandbox::{Library, Plugin, ReloadablePlugin};
use tightwad_script::{
    ConsensusSpec, Factory, FactoryError, GateSpec, LookupSpec, ModelSpec, NodeBackendSpec, SpeculationSpec,
    SwarmSource, check_fallback,
};
use tightwad_swarm::net::Seeding;

use crate::app::metrics::MetricSources;
use crate::app::pulls::{self, Pulls};

/// Loads models and plugins. Models with equal specifications are shared, so a reload does not load them again.
pub(crate) struct HostFactory {
    library: Arc<Library>,
    models: tokio::sync::Mutex<HashMap<ModelSpec, Weak<Llama>>>,
    pools: Arc<Pools>,
    pulls: Arc<Pulls>,
    sources: Arc<RwLock<MetricSources>>,
}

impl HostFactory {
    pub(crate) fn new(library: Arc<Library>) -> Self {
        Self {
            library,
            models: tokio::sync::Mutex::default(),
            pools: Arc::default(),
            pulls: Arc::default(),
            sources: Arc::default(),
        }
    }

    /// The live backends, for metrics.
    pub(crate) fn metric_sources(&self) -> Arc<RwLock<MetricSources>> {
        self.sources.clone()
    }

    /// All pools of this process.
    pub(crate) fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }

    /// The loaded models that refuse chat requests, with their reasons.
    pub(crate) fn template_errors(&self) -> Vec<String> {
        let models = sync::read(&self.sources).models.iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        let models = models.iter().map(|model| (model.name().to_owned(), model.template_error()));
        let pools = self.pools.all();
        let pools =
            pools.iter().map(|pool| (pool.spec().name.clone(), pool.template_error().map(str::to_owned)));
        models.chain(pools).filter_map(|(name, error)| Some(format!("{name}: {}", error?))).collect()
    }

    /// The running pulls.
    pub(crate) fn pulls(&self) -> &Arc<Pulls> {
        &self.pulls
    }

    /// The placement policy. Default: the built-in one.
    pub(crate) async fn placement(
        &self,
        policy: Option<&PluginSpec>,
    ) -> Result<Arc<PlacementPolicy>, String> {
        let slot: Arc<ReloadablePlugin<PlacementPolicy>> = self.plugin_or(policy, "pooling").await?;
        Ok(slot.current())
    }

    /// The piece picker.
    pub(crate) async fn piece_picker(&self, plugin: &PluginSpec) -> Result<Arc<PiecePicker>, String> {
        let slot: Arc<ReloadablePlugin<PiecePicker>> = self.plugin(plugin).await?;
        Ok(slot.current())
    }

    /// Pulls `source` into `to`, unless the file exists.
    pub(crate) async fn pull(
        &self,
        source: &SwarmSource,
        to: &Path,
        seeding: Option<Seeding>,
    ) -> Result<PulledModel, String> {
        pulls::pull((&self.piece_picker(&plugin_named("swarm")).await?, &self.pulls), source, to, seeding)
            .await
    }

    /// Loads a model with its layers on workers. The process aborts when a worker is lost.
    pub(crate) async fn pooled_model(
        &self,
        spec: ModelSpec,
        pool: PoolConfig,
        progress: impl Fn(f32) + Send + 'static,
    ) -> Result<SharedBackend, String> {
        let load = move |path: &Path, config| {
            let weights = Weights::load_pooled(path, &pool, progress)?;
            Engine::start(weights, config)
        };
        let model = load_model(&spec, load).await?;
        self.add_source(|sources| sources.models.push(Arc::downgrade(&model)));
        Ok(model)
    }

    async fn plugin<P: Plugin>(&self, plugin: &PluginSpec) -> Result<Arc<ReloadablePlugin<P>>, String> {
        let loaded = self.library.load(&plugin.name, plugin.sha256.as_deref()).await;
        loaded.map_err(|error| error.to_string())
    }

    /// The plugin that the script names. Default: the plugin `built_in`.
    async fn plugin_or<P: Plugin>(
        &self,
        plugin: Option<&PluginSpec>,
        built_in: &str,
    ) -> Result<Arc<ReloadablePlugin<P>>, String> {
        match plugin {
            Some(plugin) => self.plugin(plugin).await,
            None => self.plugin(&plugin_named(built_in)).await,
        }
    }

    /// The plugin that the script names, if any.
    async fn optional_plugin<P: Plugin>(
        &self,
        plugin: Option<&PluginSpec>,
    ) -> Result<Option<Arc<ReloadablePlugin<P>>>, String> {
        match plugin {
            Some(plugin) => self.plugin(plugin).await.map(Some),
            None => Ok(None),
        }
    }

    fn add_source(&self, add: impl FnOnce(&mut MetricSources)) {
        add(&mut sync::write(&self.sources));
    }
}

#[async_trait]
impl Factory for HostFactory {
    async fn model(&self, spec: ModelSpec) -> Result<SharedBackend, FactoryError> {
        // The lock covers the load, so that two calls do not load the same model.
        let mut models = self.models.lock().await;
        if let Some(loaded) = models.get(&spec).and_then(Weak::upgrade) {
            return Ok(loaded);
        }
        let path = match &spec.swarm {
            Some(source) => self.pull(source, &spec.path, None).await?.path,
            None => spec.path.clone(),
        };
        let model = load_model(&ModelSpec { path, ..spec.clone() }, Engine::load).await?;
        models.retain(|_, model| model.strong_count() > 0);
        models.insert(spec, Arc::downgrade(&model));
        self.add_source(|sources| sources.models.push(Arc::downgrade(&model)));
        Ok(model)
    }

    async fn lookup(&self, spec: LookupSpec) -> Result<SharedBackend, FactoryError> {
        let name = spec.name.unwrap_or_else(|| "lookup".to_owned());
        let min_match_tokens = spec.min_match_tokens.unwrap_or(Lookup::DEFAULT_MIN_MATCH_TOKENS);
        let memory_tokens =
            spec.memory_tokens.map_or(Lookup::DEFAULT_MEMORY_TOKENS, |tokens| tokens as usize);
        let lookup = Lookup::new(&name, min_match_tokens).with_memory(memory_tokens, spec.shared_memory);
        Ok(Arc::new(lookup))
    }

    async fn node(&self, spec: NodeBackendSpec) -> Result<SharedBackend, FactoryError> {
        let node = Arc::new(Node::connect(&spec.node).await.map_err(factory_error)?);
        self.add_source(|sources| sources.nodes.push(Arc::downgrade(&node)));
        let node: SharedBackend = node;
        if spec.fallback.is_empty() {
            return Ok(node);
        }
        check_fallback(&node, &spec.fallback)?;
        Ok(Arc::new(Fallback::new(node, spec.fallback)))
    }

    async fn text_server(&self, spec: TextServerSpec) -> Result<SharedBackend, FactoryError> {
        let server =
            TextServer::connect(&spec, vocabulary(&spec.verify).await?).await.map_err(factory_error)?;
        if spec.verify == Verification::Replay {
            tracing::warn!(
                server = spec.url,
                "verify = \"replay\": the server generates freely and the host compares. Answers are exact, and never faster than the server alone."
            );
        }
        Ok(Arc::new(server))
    }

    async fn discover(&self, time: Duration) -> Result<Vec<DiscoveredNode>, FactoryError> {
        discover_nodes(time).await.map_err(factory_error)
    }

    async fn pooling(&self, spec: PoolSpec) -> Result<SharedBackend, FactoryError> {
        if let Some(pool) = self.pools.find(&spec) {
            return Ok(Arc::new(PoolBackend(pool)));
        }
        let policy = self.placement(spec.policy.as_ref()).await?;
        let pool = self.pools.start(spec, policy).await.map_err(factory_error)?;
        Ok(Arc::new(PoolBackend(pool)))
    }

    async fn speculation(&self, spec: SpeculationSpec) -> Result<SharedBackend, FactoryError> {
        let driver = self.plugin_or(spec.driver.as_ref(), "speculation").await?;
        let settings = spec.settings.into();
        let mode = Speculation::new(spec.target, spec.drafters, driver, settings).map_err(factory_error)?;
        let mode = Arc::new(mode);
        self.add_source(|sources| sources.modes.push(Arc::downgrade(&mode)));
        Ok(mode)
    }

    async fn gate(&self, spec: GateSpec) -> Result<SharedBackend, FactoryError> {
        let driver = self.plugin_or(spec.driver.as_ref(), "gate").await?;
        let policy = self.optional_plugin(spec.policy.as_ref()).await?;
        let gate = Arc::new(Gate::new(GateParts {
            fleet: spec.fleet,
            reviewer: spec.reviewer,
            review_methods: spec.review_methods,
            judge_prompt: spec.judge_prompt,
            settings: spec.settings.into(),
            driver,
            policy,
            on_reviewer_lost: spec.on_reviewer_lost,
            cache: spec.cache.map(|spec| Arc::new(ReviewCache::new(spec))),
        }));
        self.add_source(|sources| sources.gates.push(Arc::downgrade(&gate)));
        Ok(gate)
    }

    async fn consensus(&self, spec: ConsensusSpec) -> Result<SharedBackend, FactoryError> {
        let driver = self.plugin_or(spec.driver.as_ref(), "consensus").await?;
        let policy = self.optional_plugin(spec.policy.as_ref()).await?;
        let policy = policy.map(|slot| PolicyHandle::new(slot, spec.on_policy_failure));
        let settings = spec.settings.into();
        let mode = Arc::new(Consensus::new(spec.target, spec.drafters, driver, policy, settings));
        self.add_source(|sources| sources.consensus.push(Arc::downgrade(&mode)));
        Ok(mode)
    }
}

/// Converts an error for the script's author.
fn factory_error(error: impl std::error::Error) -> FactoryError {
    FactoryError::from(error.to_string())
}

/// The vocabulary of a text server that verifies by log-probabilities.
async fn vocabulary(verify: &Verification) -> Result<Option<Arc<dyn PromptReader>>, String> {
    let Verification::Logprobs(path) = verify.clone() else { return Ok(None) };
    let loaded = tokio::task::spawn_blocking(move || Vocabulary::load(&path)).await;
    let vocabulary = loaded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(vocabulary)))
}

/// Loads a model on a blocking thread.
async fn load_model(
    spec: &ModelSpec,
    load: impl FnOnce(&Path, EngineConfig) -> Result<Engine, LoadError> + Send + 'static,
) -> Result<Arc<Llama>, String> {
    let name = spec.name.clone().unwrap_or_else(|| stem(&spec.path));
    let (path, config, template) = (spec.path.clone(), config(spec), spec.template.clone());
    let start = std::time::Instant::now();
    let served_name = name.clone();
    let loading = tokio::task::spawn_blocking(move || {
        load(&path, config).map(|engine| Llama::new(&served_name, engine, template.as_deref()))
    });
    let llama = loading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let engine = llama.engine();
    tracing::info!(
        model = name,
        seconds = start.elapsed().as_secs_f32(),
        context = engine.context(),
        slots = engine.slots(),
        tie_threshold = engine.tie_threshold(),
        "loaded"
    );
    Ok(Arc::new(llama))
}

/// A plugin by its name, without a digest.
fn plugin_named(name: &str) -> PluginSpec {
    PluginSpec { name: name.to_owned(), sha256: None }
}

fn config(spec: &ModelSpec) -> EngineConfig {
    let default = EngineConfig::default();
    EngineConfig {
        context: spec.context.unwrap_or(default.context),
        slots: spec.slots.unwrap_or(default.slots),
        max_queue: spec.max_queue.map_or(default.max_queue, |queue| queue as usize),
        threads: spec.threads.unwrap_or(default.threads),
        gpu_layers: spec.gpu_layers.unwrap_or(default.gpu_layers),
        ..default
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
