//! `tightwad run`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tightwad_core::Token;
use tightwad_sandbox::Library;
use tightwad_script::{Factory, Script, load, load_text};
use tightwad_serve::{CurrentToken, Metrics, RouteTable, Routes, ServerState, serve};

use crate::app::control::HostControl;
use crate::app::factory::HostFactory;
use crate::app::gauges::Gauges;
use crate::app::shelf::Shelf;
use crate::app::watch::Changes;
use crate::app::{shelf, watch};
pub(crate) use crate::cli::args::setting;
use crate::cli::listen;
use crate::cli::token::TokenParser;

pub(crate) const LISTEN: &str = "127.0.0.1:8088";

/// Serves the models of a Lua script.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
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
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Loads the script and its models, says what it would serve, and exits.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    drain: listen::Drain,
}

/// Where a script comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file, which is watched.
    File(PathBuf),
    /// A preset of this binary, by name.
    Preset(&'static str, &'static str),
}

impl Source {
    fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Preset(..) => None,
        }
    }
}

/// A script to be served.
#[derive(Debug)]
pub(crate) struct Serving {
    pub source: Source,
    pub listen: Option<String>,
    pub plugins: Option<PathBuf>,
    pub settings: Vec<(String, String)>,
    pub token: Option<Token>,
    pub drain: listen::Drain,
}

impl Run {
    pub(crate) async fn run(self) -> Result<()> {
        let Self { script, listen, plugins, settings, token, check, drain } = self;
        let serving = Serving { source: Source::File(script), listen, plugins, settings, token, drain };
        if check { serving.check().await } else { serving.run().await }
    }
}

impl Serving {
    fn factory(&self) -> Result<(Arc<HostFactory>, Arc<Library>)> {
        let beside = self.source.file().unwrap_or(Path::new("."));
        let library = shelf::library(self.plugins.as_deref(), Some(beside))?;
        Ok((Arc::new(HostFactory::new(library.clone())), library))
    }

    async fn check(self) -> Result<()> {
        let script = self.load(&self.factory()?.0).await?;
        let names: Vec<&str> = script.models.iter().map(|(name, _)| name.as_str()).collect();
        println!("{} is in order; it serves {}", self.shown(), names.join(", "));
        Ok(())
    }

    fn shown(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Preset(name, _) => format!("the preset {name}"),
        }
    }

    /// Serves until the end.
    pub(crate) async fn run(self) -> Result<()> {
        let (factory, library) = self.factory()?;
        let script = self.load(&factory).await?;
        let names: Vec<&str> = script.models.iter().map(|(name, _)| name.as_str()).collect();
        let (token, script_listen) = (self.token.clone().or(script.token), script.listen.clone());
        let wanted = self.listen.as_deref().or(script.listen.as_deref()).unwrap_or(LISTEN);
        let listener = listen::bind(wanted, token.is_some(), "`token` in tw.serve or TIGHTWAD_TOKEN").await?;
        let changes = self.source.file().map(|script| watch::watch([watch::folder_of(script)], "lua"));
        let shelf = Shelf::open(library).await;
        eprintln!("tightwad serves {} at http://{}/v1", names.join(", "), listener.local_addr()?);
        let table = Arc::new(RouteTable::new(Routes::new(script.models)));
        let metrics = Arc::new(Metrics::default());
        metrics.register(Box::new(Gauges(factory.observed(), Some(shelf.clone()))));
        let (pools, pulls, observed) = (factory.pools().clone(), factory.pulls().clone(), factory.observed());
        let control = Arc::new(HostControl { pools, pulls, observed, shelf: shelf.clone() });
        let following = tokio::spawn(shelf.follow());
        let (address, drain) = (listener.local_addr()?, self.drain);
        let state = ServerState::new(table.clone(), metrics, token).controlling(control);
        let served = Served { table, token: state.token().clone(), address, listen: script_listen };
        let reloading = tokio::spawn(self.reload(factory, served, changes));
        serve(listener, state, drain.interrupted()?).await?;
        reloading.abort();
        following.abort();
        Ok(())
    }

    async fn load(&self, factory: &Arc<HostFactory>) -> Result<Script> {
        let factory: Arc<dyn Factory> = factory.clone();
        Ok(match &self.source {
            Source::File(path) => load(path, factory, &self.settings).await?,
            Source::Preset(name, text) => {
                let (source, here) = (text.as_bytes().to_vec(), Path::new("."));
                load_text(name, source, here, factory, &self.settings).await?
            }
        })
    }

    /// Replaces the routes whenever the script changes; a script that does not load changes nothing.
    /// Requests that run keep the backends they began with.
    async fn reload(
        self,
        factory: Arc<HostFactory>,
        mut served: Served,
        changes: Option<notify::Result<Changes>>,
    ) {
        let mut changes = match changes {
            None => return,
            Some(Ok(changes)) => changes,
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot watch the script: restart to change it");
                return;
            }
        };
        while changes.next().await {
            match self.load(&factory).await {
                Ok(script) => {
                    self.apply(&mut served, script);
                    tracing::info!(script = self.shown(), "reloaded");
                }
                Err(error) => {
                    tracing::error!("the script changed and does not load; the old one goes on: {error:#}")
                }
            }
        }
    }

    /// Puts a changed script to work, and says what of it needs a restart.
    fn apply(&self, served: &mut Served, script: Script) {
        served.table.replace(Routes::new(script.models));
        if self.listen.is_none() && script.listen != served.listen {
            let wanted = script.listen.as_deref().unwrap_or(LISTEN);
            tracing::warn!(
                "`listen` is now {wanted}; restart to listen there. Until then it is {}",
                served.address
            );
            served.listen = script.listen;
        }
        let token = self.token.clone().or(script.token);
        if token == served.token.current() {
            return;
        }
        if token.is_none() && !served.address.ip().is_loopback() {
            tracing::warn!(
                "`token` is gone, and other machines reach {}: the old token still holds. Set a new one, or restart \
                 on a loopback address",
                served.address
            );
            return;
        }
        served.token.replace(token);
        tracing::info!("`token` has changed; the old one is refused from now on");
    }
}

/// What a reload changes.
struct Served {
    table: Arc<RouteTable>,
    token: Arc<CurrentToken>,
    address: SocketAddr,
    /// What the script said.
    listen: Option<String>,
}
