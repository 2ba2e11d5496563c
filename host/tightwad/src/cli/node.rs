//! `tightwad node`: lends models to other machines.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tightwad_core::{SharedBackend, Token, parse_context_length};
use tightwad_engine::pool::PoolConfig;
use tightwad_net::Announcement;
use tightwad_node::{NodeService, SessionLimits, routes};
use tightwad_pool::ChildMessage;
use tightwad_script::{Factory, ModelSpec, SwarmSource};
use tightwad_serve::{Metrics, ModelTable, ServedModels, ServerState, serve};
use tightwad_swarm::net::{self as net, Peer, Seeds};
use tightwad_swarm::{ModelRef, ModelRefError};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::app::factory::HostFactory;
use crate::app::metrics::MetricsCollector;
use crate::app::plugin_folders;
use crate::cli::args::models_dir;
use crate::cli::listen;
use crate::cli::listen::optional_announcement;
use crate::cli::machine::{MachineArgs, MachineServer};
use crate::cli::swarm::seed::{seed_file, seed_state};
use crate::cli::token::TokenParser;

/// Lends models to other machines.
#[derive(Debug, clap::Args)]
pub(crate) struct Node {
    /// Address to listen on. Addresses other than loopback need a token or a paired machine.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7710")]
    listen: String,
    /// Model to lend: NAME=PATH for a GGUF file, or NAME=swarm:DIGEST for a model of other machines. Repeatable.
    #[arg(long = "model", value_name = "NAME=PATH", value_parser = parse_model, required = true)]
    models: Vec<(String, Source)>,
    /// Seeder of the models with `swarm:`. Repeatable. Default: all seeders found on the local network.
    #[arg(long, value_parser = crate::cli::args::peer, value_name = "URL")]
    peer: Vec<Peer>,
    /// Token of the seeders. It is proved to encrypted ones, and sent only to plain ones that --peer names.
    #[arg(long, env = "TIGHTWAD_SWARM_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    peer_token: Option<Token>,
    /// Folder for pulled models. Default: the user's models.
    #[arg(long, value_name = "DIR")]
    models_dir: Option<PathBuf>,
    /// Does not seed the model files.
    #[arg(long)]
    no_seed: bool,
    /// Token that hosts must know.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Tokens per sequence, such as 32k. Default: the trained context length, as far as memory allows.
    #[arg(long, value_name = "TOKENS", value_parser = parse_context_length)]
    context: Option<u32>,
    /// Sequences that run at the same time, per model.
    #[arg(long)]
    slots: Option<u32>,
    /// Requests that may wait for a slot, per model.
    #[arg(long)]
    max_queue: Option<u32>,
    /// Threads of a forward pass. Default: one per core.
    #[arg(long)]
    threads: Option<u32>,
    /// Number of layers on the GPU.
    #[arg(long)]
    gpu_layers: Option<u32>,
    /// Open sessions per client address.
    #[arg(long, default_value_t = SessionLimits::default().per_client)]
    max_sessions_per_client: usize,
    /// Seconds after which the node closes an idle session.
    #[arg(long, default_value_t = SessionLimits::default().idle_timeout.as_secs())]
    session_idle_timeout: u64,
    /// Placement of the layers. The host that starts this process sets it.
    #[arg(long, hide = true, value_parser = parse_pool_config)]
    pool: Option<PoolConfig>,
    /// Does not announce the node on the local network.
    #[arg(long)]
    no_announce: bool,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    drain: listen::Drain,
}

/// Source of a model.
#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    Swarm(ModelRef),
}

fn parse_model(text: &str) -> Result<(String, Source), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            let source = match path.strip_prefix("swarm:") {
                Some(reference) => {
                    Source::Swarm(reference.parse().map_err(|error: ModelRefError| error.to_string())?)
                }
                None => Source::File(path.into()),
            };
            Ok((name.to_owned(), source))
        }
        _ => Err("expected NAME=PATH or NAME=swarm:DIGEST".to_owned()),
    }
}

fn parse_pool_config(text: &str) -> Result<PoolConfig, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Node {
    pub(crate) async fn run(self) -> Result<()> {
        self.machine.check_peers(&self.peer)?;
        let server = self.machine.bind(&self.listen, self.token.clone(), "--token or TIGHTWAD_TOKEN").await?;
        if self.pool.is_some() {
            listen::end_with_parent();
        }
        let factory = HostFactory::new(plugin_folders::library(None, None)?);
        let seeds = Arc::new(Seeds::new());
        let models = self.models(&factory, &server, &seeds).await?;
        let names: Vec<String> = models.iter().map(|(name, _)| name.clone()).collect();
        let (address, url) = (server.listener.local_addr()?, server.url()?);
        let metrics = Arc::new(Metrics::default());
        metrics.register(Box::new(MetricsCollector(factory.metric_sources(), None)));
        let table = Arc::new(ModelTable::new(ServedModels::new(models.clone())));
        let state = ServerState::new(table, metrics, server.token.clone())
            .with_encryption(server.encryption.clone())
            .with_guarded_routes(routes(NodeService::new(models, self.session_limits())));
        let seeding = self.pool.is_none() && !self.no_seed;
        let state = if seeding {
            state.with_extra_routes(net::router(seed_state(&seeds, server.token.clone(), &[])))
        } else {
            state
        };
        let seed_task = tokio::spawn(seed_all(seeds, if seeding { self.files() } else { Vec::new() }));
        match self.pool {
            Some(_) => send_to_parent(&ChildMessage::Listening(address)),
            None => eprintln!("tightwad lends {} at {url}", names.join(", ")),
        }
        let _announcement = (!self.no_announce)
            .then(|| {
                optional_announcement("node", Announcement::node(address, server.is_encrypted(), &names))
            })
            .flatten();
        let _seeder = (!self.no_announce && seeding)
            .then(|| optional_announcement("seeder", Announcement::seeder(address, server.is_encrypted())))
            .flatten();
        serve(server.listener, state, self.drain.shutdown()?).await?;
        seed_task.abort();
        Ok(())
    }

    fn session_limits(&self) -> SessionLimits {
        SessionLimits {
            per_client: self.max_sessions_per_client,
            idle_timeout: Duration::from_secs(self.session_idle_timeout.max(1)),
            ..SessionLimits::default()
        }
    }

    /// Loads the models. Models of a swarm are pulled first.
    async fn models(
        &self,
        factory: &HostFactory,
        server: &MachineServer,
        seeds: &Arc<Seeds>,
    ) -> Result<Vec<(String, SharedBackend)>> {
        let mut models: Vec<(String, SharedBackend)> = Vec::new();
        for (name, source) in &self.models {
            if models.iter().any(|(existing, _)| existing == name) {
                bail!("--model {name}: the name is given twice");
            }
            let path = match source {
                Source::File(path) => path.clone(),
                Source::Swarm(reference) => self.pull(factory, server, seeds, reference).await?,
            };
            let spec = self.spec(name, &path);
            let loaded = match self.pool.clone() {
                None => factory.model(spec).await.map_err(String::from),
                Some(pool) => {
                    factory
                        .pooled_model(spec, pool, |done| send_to_parent(&ChildMessage::Loading(done)))
                        .await
                }
            };
            let loaded = loaded.inspect_err(|error| {
                if self.pool.is_some() {
                    send_to_parent(&ChildMessage::Failed(error.clone()));
                }
            });
            models.push((name.clone(), loaded.map_err(|error| anyhow::anyhow!(error))?));
        }
        Ok(models)
    }

    /// Pulls a model. During the pull, the node's own address seeds the complete pieces.
    async fn pull(
        &self,
        factory: &HostFactory,
        server: &MachineServer,
        seeds: &Arc<Seeds>,
        reference: &ModelRef,
    ) -> Result<PathBuf> {
        let folder = match &self.models_dir {
            Some(folder) => folder.clone(),
            None => models_dir()?,
        };
        let source = SwarmSource {
            model: reference.clone(),
            peers: self.peer.iter().map(Peer::address).collect(),
            token: self.peer_token.clone(),
        };
        let (end_sender, end_receiver) = oneshot::channel::<()>();
        let mut seeding = None;
        if !self.no_seed {
            let second_listener = TcpListener::from_std(clone_listener(&server.listener)?)?;
            seeding = Some(server.seeding(seeds)?);
            let pull_end = async move { drop(end_receiver.await) };
            let state = seed_state(seeds, server.token.clone(), &[]);
            tokio::spawn(net::serve(second_listener, state, server.encryption.clone(), pull_end));
        }
        let pulled = factory.pull(&source, &folder, seeding).await;
        drop(end_sender);
        let pulled = pulled.map_err(|error| anyhow::anyhow!("--model swarm:{reference}: {error}"))?;
        seeds.add(pulled.store);
        Ok(pulled.path)
    }

    /// The paths of the models that are local files.
    fn files(&self) -> Vec<PathBuf> {
        let file = |(_, source): &(String, Source)| match source {
            Source::File(path) => Some(path.clone()),
            Source::Swarm(_) => None,
        };
        self.models.iter().filter_map(file).collect()
    }

    fn spec(&self, name: &str, path: &std::path::Path) -> ModelSpec {
        ModelSpec {
            path: path.to_owned(),
            swarm: None,
            name: Some(name.to_owned()),
            context: self.context,
            slots: self.slots,
            max_queue: self.max_queue,
            threads: self.threads,
            gpu_layers: self.gpu_layers,
            template: None,
        }
    }
}

/// Duplicates the listening socket, so that a second server can accept connections later.
fn clone_listener(listener: &TcpListener) -> Result<std::net::TcpListener> {
    let socket = listener.as_fd().try_clone_to_owned()?;
    Ok(std::net::TcpListener::from(socket))
}

/// Seeds the files one after the other. A file without a manifest beside it is hashed first.
async fn seed_all(seeds: Arc<Seeds>, files: Vec<PathBuf>) {
    for file in files {
        match seed_file(&seeds, &file, None, None).await {
            Ok(seeded) => {
                tracing::info!(file = %file.display(), name = seeded.name, root = seeded.root, "seeded");
            }
            Err(error) => tracing::warn!(file = %file.display(), %error, "not seeded"),
        }
    }
}

/// Sends a message to the parent process.
fn send_to_parent(message: &ChildMessage) {
    if let Ok(line) = serde_json::to_string(message) {
        println!("{line}");
    }
}
