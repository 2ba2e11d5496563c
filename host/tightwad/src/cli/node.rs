//! `tightwad node`: lends models to other machines.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tightwad_core::{SharedBackend, Token, context_length};
use tightwad_engine::pool::PoolConfig;
use tightwad_net::Announcement;
use tightwad_node::{Lent, SessionLimits, routes};
use tightwad_pool::PoolSaid as Said;
use tightwad_script::{Factory, ModelSpec, SwarmSource};
use tightwad_serve::{Metrics, RouteTable, Routes, ServerState, serve};
use tightwad_swarm::net::{self as net, Peer, SeedState, Seeding, Seeds};
use tightwad_swarm::{Wanted, WantedError};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::app::factory::HostFactory;
use crate::app::gauges::Gauges;
use crate::app::shelf;
use crate::cli::args::folder;
use crate::cli::listen;
use crate::cli::listen::announced;
use crate::cli::swarm::seed::{seed_state, seeded};
use crate::cli::token::TokenParser;

/// Lends models to other machines.
#[derive(Debug, clap::Args)]
pub(crate) struct Node {
    /// Where to listen; anything but loopback needs a token.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7710")]
    listen: String,
    /// A model to lend: a GGUF file, or one that other machines have, as in NAME=swarm:DIGEST.
    #[arg(long = "model", value_name = "NAME=PATH", value_parser = named, required = true)]
    models: Vec<(String, Source)>,
    /// A machine that may have models of `swarm:`; may be given several times. Default: those found on the
    /// local network.
    #[arg(long, value_parser = crate::cli::args::peer, value_name = "URL")]
    peer: Vec<Peer>,
    /// The token that those want to see.
    #[arg(long, env = "TIGHTWAD_NODE_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    peer_token: Option<Token>,
    /// Where models that are pulled are kept; default: the user's models.
    #[arg(long, value_name = "DIR")]
    models_folder: Option<PathBuf>,
    /// Does not let other machines have the models' files.
    #[arg(long)]
    no_seed: bool,
    /// The bearer token that hosts must send.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Tokens per sequence, such as 32k; default: what the model was trained for, as far as memory allows.
    #[arg(long, value_name = "TOKENS", value_parser = context_length)]
    context: Option<u32>,
    /// Sequences that run at once, a model.
    #[arg(long)]
    slots: Option<u32>,
    /// Requests that may wait for a sequence, a model.
    #[arg(long)]
    queue: Option<u32>,
    /// Threads of a forward pass; default: one a core.
    #[arg(long)]
    threads: Option<u32>,
    /// Layers on a GPU.
    #[arg(long)]
    gpu_layers: Option<u32>,
    /// Sessions that one client may have.
    #[arg(long, default_value_t = SessionLimits::default().a_client)]
    sessions_a_client: usize,
    /// Seconds after which an idle session is closed.
    #[arg(long, default_value_t = SessionLimits::default().idle.as_secs())]
    idle: u64,
    /// Where the layers of the one model lie, for the host that started this process.
    #[arg(long, hide = true, value_parser = pool)]
    pool: Option<PoolConfig>,
    /// Does not make itself known on the local network.
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    drain: listen::Drain,
}

/// Where a model comes from.
#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    Swarm(Wanted),
}

fn named(text: &str) -> Result<(String, Source), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            let source = match path.strip_prefix("swarm:") {
                Some(wanted) => {
                    Source::Swarm(wanted.parse().map_err(|error: WantedError| error.to_string())?)
                }
                None => Source::File(path.into()),
            };
            Ok((name.to_owned(), source))
        }
        _ => Err("a model has the form NAME=PATH or NAME=swarm:DIGEST".to_owned()),
    }
}

fn pool(text: &str) -> Result<PoolConfig, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Node {
    pub(crate) async fn run(self) -> Result<()> {
        let listener = listen::bind(&self.listen, self.token.is_some(), "--token or TIGHTWAD_TOKEN").await?;
        if self.pool.is_some() {
            listen::end_with_parent();
        }
        let factory = HostFactory::new(shelf::library(None, None)?);
        let seeds = Arc::new(Seeds::new());
        let models = self.models(&factory, &listener, &seeds).await?;
        let names: Vec<String> = models.iter().map(|(name, _)| name.clone()).collect();
        let address = listener.local_addr()?;
        let metrics = Arc::new(Metrics::default());
        metrics.register(Box::new(Gauges(factory.observed(), None)));
        let idle = Duration::from_secs(self.idle.max(1));
        let limits = SessionLimits { a_client: self.sessions_a_client, idle, ..SessionLimits::default() };
        let table = Arc::new(RouteTable::new(Routes::new(models.clone())));
        let state =
            ServerState::new(table, metrics, self.token.clone()).guarding(routes(Lent::new(models, limits)));
        let seeding = self.pool.is_none() && !self.no_seed;
        let state = if seeding { state.beside(net::router(self.seed_state(&seeds))) } else { state };
        let hashing = tokio::spawn(seed_all(seeds, if seeding { self.files() } else { Vec::new() }));
        match self.pool {
            Some(_) => say(&Said::Listening(address)),
            None => eprintln!("tightwad lends {} at http://{address}", names.join(", ")),
        }
        let _announcement =
            (!self.quiet).then(|| announced("node", Announcement::new(address, &names))).flatten();
        let _seeder =
            (!self.quiet && seeding).then(|| announced("seeder", Announcement::seeder(address))).flatten();
        serve(listener, state, self.drain.interrupted()?).await?;
        hashing.abort();
        Ok(())
    }

    /// Loads the models, those that other machines have once they are here.
    async fn models(
        &self,
        factory: &HostFactory,
        listener: &TcpListener,
        seeds: &Arc<Seeds>,
    ) -> Result<Vec<(String, SharedBackend)>> {
        let mut models: Vec<(String, SharedBackend)> = Vec::new();
        for (name, source) in &self.models {
            if models.iter().any(|(own, _)| own == name) {
                bail!("--model {name}: this name is given twice");
            }
            let path = match source {
                Source::File(path) => path.clone(),
                Source::Swarm(wanted) => self.pulled(factory, listener, seeds, wanted).await?,
            };
            let spec = self.spec(name, &path);
            let loaded = match self.pool.clone() {
                None => factory.model(spec).await.map_err(String::from),
                Some(pool) => factory.pooled(spec, pool, |done| say(&Said::Loading(done))).await,
            };
            let loaded = loaded.inspect_err(|error| {
                if self.pool.is_some() {
                    say(&Said::Failed(error.clone()));
                }
            });
            models.push((name.clone(), loaded.map_err(|error| anyhow::anyhow!(error))?));
        }
        Ok(models)
    }

    /// Pulls a model, and seeds what has come of it at the node's own address meanwhile.
    async fn pulled(
        &self,
        factory: &HostFactory,
        listener: &TcpListener,
        seeds: &Arc<Seeds>,
        wanted: &Wanted,
    ) -> Result<PathBuf> {
        let folder = match &self.models_folder {
            Some(folder) => folder.clone(),
            None => folder()?,
        };
        let source = SwarmSource {
            wanted: wanted.clone(),
            peers: self.peer.iter().map(ToString::to_string).collect(),
            token: self.peer_token.clone(),
        };
        let (over, ended) = oneshot::channel::<()>();
        let mut seeding = None;
        if !self.no_seed {
            let twin = TcpListener::from_std(again(listener)?)?;
            seeding = Some(Seeding { seeds: seeds.clone(), port: Some(listener.local_addr()?.port()) });
            let until = async move { drop(ended.await) };
            tokio::spawn(net::serve(twin, self.seed_state(seeds), until));
        }
        let pulled = factory.pull(&source, &folder, seeding).await;
        drop(over);
        let pulled = pulled.map_err(|error| anyhow::anyhow!("--model swarm:{wanted}: {error}"))?;
        seeds.add(pulled.store);
        Ok(pulled.path)
    }

    fn seed_state(&self, seeds: &Arc<Seeds>) -> SeedState {
        seed_state(seeds, self.token.clone(), &[])
    }

    /// The files that it lends.
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
            queue: self.queue,
            threads: self.threads,
            gpu_layers: self.gpu_layers,
        }
    }
}

/// The same socket once more: who connects is served by whoever listens then.
fn again(listener: &TcpListener) -> Result<std::net::TcpListener> {
    let socket = listener.as_fd().try_clone_to_owned()?;
    Ok(std::net::TcpListener::from(socket))
}

/// Seeds files, one after the other: where no manifest lies beside one, it is hashed first.
async fn seed_all(seeds: Arc<Seeds>, files: Vec<PathBuf>) {
    for file in files {
        match seeded(&seeds, &file, None, None).await {
            Ok(seeded) => {
                tracing::info!(file = %file.display(), name = seeded.name, root = seeded.root, "seeded");
            }
            Err(error) => tracing::warn!(file = %file.display(), %error, "not seeded"),
        }
    }
}

/// Tells the host that started this process; should it be gone, this process ends too.
fn say(said: &Said) {
    if let Ok(line) = serde_json::to_string(said) {
        println!("{line}");
    }
}
