//! `tightwad node`: lends models to other machines.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tightwad_engine::pool::PoolConfig;

use super::factory::HostFactory;
use super::gauges::Gauges;
use super::{listen, shelf};
use crate::backend::{Announcement, SharedBackend};
use crate::mode::PoolSaid as Said;
use crate::script::{Factory, ModelSpec};
use crate::server::node::{Lent, SessionLimits};
use crate::server::{self, Metrics, RouteTable, Routes, ServerState};

/// Lends models to other machines.
#[derive(Debug, clap::Args)]
pub(super) struct Node {
    /// Where to listen; anything but loopback needs a token.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7710")]
    listen: String,
    /// A model to lend.
    #[arg(long = "model", value_name = "NAME=PATH", value_parser = named, required = true)]
    models: Vec<(String, PathBuf)>,
    /// The bearer token that hosts must send.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Tokens a sequence may have; default: what the model was trained for, at most 4096.
    #[arg(long)]
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
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("a model has the form NAME=PATH".to_owned()),
    }
}

fn pool(text: &str) -> Result<PoolConfig, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Node {
    pub(super) async fn run(self) -> Result<()> {
        let listener = listen::bind(&self.listen, self.token.is_some(), "--token or TIGHTWAD_TOKEN").await?;
        if self.pool.is_some() {
            listen::end_with_parent();
        }
        let factory = HostFactory::new(shelf::library(None, None)?);
        let mut models: Vec<(String, SharedBackend)> = Vec::new();
        for (name, path) in &self.models {
            if models.iter().any(|(own, _)| own == name) {
                bail!("--model {name}: this name is given twice");
            }
            let spec = self.spec(name, path);
            let loaded = match self.pool.clone() {
                None => factory.model(spec).await,
                Some(pool) => factory.pooled(spec, pool, |done| say(&Said::Loading(done))).await,
            };
            let loaded = loaded.inspect_err(|error| {
                if self.pool.is_some() {
                    say(&Said::Failed(error.clone()));
                }
            });
            models.push((name.clone(), loaded.map_err(|error| anyhow::anyhow!(error))?));
        }
        let names: Vec<String> = models.iter().map(|(name, _)| name.clone()).collect();
        let address = listener.local_addr()?;
        let metrics = Arc::new(Metrics::default());
        metrics.register(Box::new(Gauges(factory.observed(), None)));
        let idle = Duration::from_secs(self.idle.max(1));
        let limits = SessionLimits { a_client: self.sessions_a_client, idle, ..SessionLimits::default() };
        let table = Arc::new(RouteTable::new(Routes::new(models.clone())));
        let state =
            ServerState::new(table, metrics, self.token.as_deref()).lending(Lent::new(models, limits));
        match self.pool {
            Some(_) => say(&Said::Listening(address)),
            None => eprintln!("tightwad lends {} at http://{address}", names.join(", ")),
        }
        let _announcement = (!self.quiet).then(|| announce(address, &names)).flatten();
        server::serve(listener, state, listen::interrupted()?).await?;
        Ok(())
    }

    fn spec(&self, name: &str, path: &std::path::Path) -> ModelSpec {
        ModelSpec {
            path: path.to_owned(),
            name: Some(name.to_owned()),
            context: self.context,
            slots: self.slots,
            queue: self.queue,
            threads: self.threads,
            gpu_layers: self.gpu_layers,
        }
    }
}

/// Tells the host that started this process; should it be gone, this process ends too.
fn say(said: &Said) {
    if let Ok(line) = serde_json::to_string(said) {
        println!("{line}");
    }
}

/// A node that cannot be found can still be used by its address.
fn announce(address: SocketAddr, models: &[String]) -> Option<Announcement> {
    match Announcement::new(address, models) {
        Ok(announcement) => Some(announcement),
        Err(error) => {
            tracing::warn!(
                error,
                "other machines cannot find this node by themselves; give them its address"
            );
            None
        }
    }
}
