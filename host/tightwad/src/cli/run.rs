//! `tightwad run`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use super::control::HostControl;
use super::factory::HostFactory;
use super::gauges::Gauges;
use super::listen;
use super::shelf::{self, Shelf};
use crate::script::{self, Factory, Script};
use crate::server::{self, Metrics, RouteTable, Routes, ServerState};
use crate::watch::{self, Changes};

pub(super) const LISTEN: &str = "127.0.0.1:8088";

/// Serves the models of a Lua script.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// The script.
    script: PathBuf,
    /// Where to listen; default: what the script says, or 127.0.0.1:8088.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// A folder of plugins; a file NAME.wasm there replaces the built-in NAME. Default: the folder `plugins`
    /// beside the script, and the user's.
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// A setting that the script finds in tw.settings.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// The bearer token that clients must send; default: what the script says.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Loads the script and its models, says what it would serve, and exits.
    #[arg(long)]
    check: bool,
}

pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a setting has the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Run {
    pub(super) async fn run(self) -> Result<()> {
        let library = shelf::library(self.plugins.as_deref(), Some(&self.script))?;
        let factory = Arc::new(HostFactory::new(library.clone()));
        let script = self.load(&factory).await?;
        let names: Vec<&str> = script.models.iter().map(|(name, _)| name.as_str()).collect();
        if self.check {
            println!("{} is in order; it serves {}", self.script.display(), names.join(", "));
            return Ok(());
        }
        let token = self.token.clone().or(script.token);
        let wanted = self.listen.as_deref().or(script.listen.as_deref()).unwrap_or(LISTEN);
        let listener = listen::bind(wanted, token.is_some(), "`token` in tw.serve or TIGHTWAD_TOKEN").await?;
        let changes = watch::watch([watch::folder_of(&self.script)], "lua");
        let shelf = Shelf::open(library).await;
        eprintln!("tightwad serves {} at http://{}/v1", names.join(", "), listener.local_addr()?);
        let table = Arc::new(RouteTable::new(Routes::new(script.models)));
        let metrics = Arc::new(Metrics::default());
        metrics.register(Box::new(Gauges(factory.observed(), Some(shelf.clone()))));
        let (pools, observed) = (factory.pools().clone(), factory.observed());
        let control = Arc::new(HostControl { pools, observed, shelf: shelf.clone() });
        let following = tokio::spawn(shelf.follow());
        let reloading = tokio::spawn(self.reload(factory, table.clone(), changes));
        let state = ServerState::new(table, metrics, token.as_deref()).controlling(control);
        server::serve(listener, state, listen::interrupted()?).await?;
        reloading.abort();
        following.abort();
        Ok(())
    }

    async fn load(&self, factory: &Arc<HostFactory>) -> Result<Script> {
        let factory: Arc<dyn Factory> = factory.clone();
        Ok(script::load(&self.script, factory, &self.settings).await?)
    }

    /// Replaces the routes whenever the script changes; a script that does not load changes nothing.
    /// Requests that run keep the backends they began with.
    async fn reload(
        self,
        factory: Arc<HostFactory>,
        table: Arc<RouteTable>,
        changes: notify::Result<Changes>,
    ) {
        let mut changes = match changes {
            Ok(changes) => changes,
            Err(error) => {
                tracing::warn!(%error, "cannot watch the script: restart to change it");
                return;
            }
        };
        while changes.next().await {
            match self.load(&factory).await {
                Ok(script) => {
                    table.replace(Routes::new(script.models));
                    tracing::info!(script = %self.script.display(), "reloaded");
                }
                Err(error) => {
                    tracing::error!("the script changed and does not load; the old one goes on: {error:#}")
                }
            }
        }
    }
}
