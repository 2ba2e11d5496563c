//! `tightwad run`: serves a script and reloads it when it changes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tightwad_core::{Credentials, Token, WatchTiming, WatchedFiles};
use tightwad_net::door::{Encryption, PlainAccess, WebNames};
use tightwad_net::tls::{CertificateFiles, CertificatePaths, ServerTls};
use tightwad_sandbox::Library;
use tightwad_script::{Factory, Script, argument_table, declared_arguments, load_text, load_watched};
use tightwad_serve::{ApiKeys, Metrics, ModelTable, ServedModels, ServerState, UsageFile, UsageSaver, serve};

use crate::app::control::HostControl;
use crate::app::factory::HostFactory;
use crate::app::metrics::MetricsCollector;
use crate::app::plugin_folders;
use crate::app::plugin_folders::PluginFolders;
use crate::cli::args::key_value;
use crate::cli::listen;
use crate::cli::token::TokenParser;

/// The default address: neither the script nor the command line has one.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:8088";

/// Serves the models of a Lua script.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Lua script.
    script: PathBuf,
    /// Address to listen on. Default: `listen` of the script, or 127.0.0.1:8088.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Folder of plugins. A file NAME.wasm replaces the built-in plugin NAME. Default: `plugins` beside the script,
    /// and the user's folder.
    #[arg(long, value_name = "DIR")]
    plugins_dir: Option<PathBuf>,
    /// Value of an argument that the script declares with tw.arg. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    arguments: Vec<(String, String)>,
    /// Bearer token that clients must send. Default: `token` of the script.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Loads the script and its models, prints the served names, and exits.
    #[arg(long)]
    check: bool,
    /// Prints the arguments that the script declares with tw.arg, and exits. Loads no model.
    #[arg(long, conflicts_with_all = ["check", "arguments"])]
    args: bool,
    #[command(flatten)]
    drain: listen::Drain,
}

/// Source of a script.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file. The host watches it.
    File(PathBuf),
    /// A preset in this binary: name and text.
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

/// Serves a script with the options of the command line.
#[derive(Debug)]
pub(crate) struct ScriptServer {
    pub source: Source,
    pub listen: Option<String>,
    pub plugins_dir: Option<PathBuf>,
    /// Names and texts for tw.arg.
    pub arguments: Vec<(String, String)>,
    pub token: Option<Token>,
    pub drain: listen::Drain,
}

impl Run {
    pub(crate) async fn run(self) -> Result<()> {
        let Self { script, listen, plugins_dir, arguments, token, check, args, drain } = self;
        if args {
            return print_arguments(&script).await;
        }
        let server =
            ScriptServer { source: Source::File(script), listen, plugins_dir, arguments, token, drain };
        if check { server.check().await } else { server.run().await }
    }
}

async fn print_arguments(script: &Path) -> Result<()> {
    let arguments = declared_arguments(script).await?;
    if arguments.is_empty() {
        println!("{} declares no arguments", script.display());
    } else {
        print!("{}", argument_table(&arguments));
    }
    Ok(())
}

impl ScriptServer {
    fn factory(&self) -> Result<(Arc<HostFactory>, Arc<Library>)> {
        let script_path = self.source.file().unwrap_or(Path::new("."));
        let library = plugin_folders::library(self.plugins_dir.as_deref(), Some(script_path))?;
        Ok((Arc::new(HostFactory::new(library.clone())), library))
    }

    async fn check(self) -> Result<()> {
        let (factory, _) = self.factory()?;
        let script = self.load(&factory, &Arc::default()).await?;
        endpoint_encryption(script.tls)?;
        factory.template_errors().iter().for_each(|error| println!("warning: {error}"));
        let names: Vec<&str> = script.models.iter().map(|(name, _)| name.as_str()).collect();
        println!("{} is valid. It serves {}.", self.source_name(), names.join(", "));
        Ok(())
    }

    fn source_name(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Preset(name, _) => format!("the preset {name}"),
        }
    }

    /// Serves until a signal ends the process.
    pub(crate) async fn run(self) -> Result<()> {
        let (factory, library) = self.factory()?;
        let files = Arc::default();
        let script = self.load(&factory, &files).await?;
        let names: Vec<&str> = script.models.iter().map(|(name, _)| name.as_str()).collect();
        let (credentials, script_listen) = (self.credentials(script.credentials), script.listen.clone());
        let address = self.listen.as_deref().or(script.listen.as_deref()).unwrap_or(DEFAULT_LISTEN);
        let source = "`token` or `keys` in tw.serve, --token or TIGHTWAD_TOKEN";
        let listener = listen::bind(address, !credentials.accepts_everyone(), source).await?;
        let folders = PluginFolders::open(library).await;
        let encryption = endpoint_encryption(script.tls.clone())?;
        let (address, drain) = (listener.local_addr()?, self.drain);
        print_address(&names, address, &encryption);
        let table = Arc::new(ModelTable::new(ServedModels::new(script.models)));
        let metrics = Arc::new(Metrics::default());
        metrics.register(Box::new(MetricsCollector(factory.metric_sources(), Some(folders.clone()))));
        let (pools, pulls, sources) =
            (factory.pools().clone(), factory.pulls().clone(), factory.metric_sources());
        let control = Arc::new(HostControl { pools, pulls, sources, folders: folders.clone() });
        let watch_task = tokio::spawn(folders.follow());
        let state = ServerState::new(table.clone(), metrics, credentials)
            .with_encryption(encryption)
            .with_control(control)
            .with_web(script.web.clone());
        let (keys, web) = (state.keys().clone(), script.web);
        let usage_saver = UsageSaver::start(keys.clone(), UsageFile::of_user());
        let live = LiveState { table, keys, web, address, listen: script_listen, tls: script.tls };
        let (pools, shutdown) = (factory.pools().clone(), drain.shutdown()?);
        let reload_task = tokio::spawn(self.reload(factory, live, files));
        let shutdown_started = shutdown.clone();
        tokio::spawn(async move {
            shutdown_started.started().await;
            pools.drain();
        });
        let served = serve(listener, state, shutdown).await;
        reload_task.abort();
        watch_task.abort();
        usage_saver.finish().await;
        Ok(served?)
    }

    /// The credentials of the script. A token of the command line replaces the script's.
    fn credentials(&self, script: Credentials) -> Credentials {
        Credentials { token: self.token.clone().or(script.token), ..script }
    }

    /// Loads the script. `files` receives its files.
    async fn load(&self, factory: &Arc<HostFactory>, files: &Arc<WatchedFiles>) -> Result<Script> {
        let factory: Arc<dyn Factory> = factory.clone();
        Ok(match &self.source {
            Source::File(path) => load_watched(path, factory, &self.arguments, files).await?,
            Source::Preset(name, text) => {
                let (source, here) = (text.as_bytes().to_vec(), Path::new("."));
                load_text(name, source, here, factory, &self.arguments).await?
            }
        })
    }

    /// Loads the script again after each change. A script with an error changes nothing. Running requests keep their
    /// backends.
    async fn reload(self, factory: Arc<HostFactory>, mut live: LiveState, files: Arc<WatchedFiles>) {
        // A preset has no files, so it never changes.
        loop {
            files.changed(WatchTiming::default()).await;
            match self.load(&factory, &files).await {
                Ok(script) => {
                    self.apply(&mut live, script);
                    tracing::info!(script = self.source_name(), "reloaded");
                }
                Err(error) => {
                    tracing::error!("the changed script does not load. The host keeps the old one: {error:#}")
                }
            }
        }
    }

    /// Applies a changed script, and logs the changes that need a restart.
    fn apply(&self, live: &mut LiveState, script: Script) {
        live.table.replace(ServedModels::new(script.models));
        live.web.replace(&script.web);
        if self.listen.is_none() && script.listen != live.listen {
            let address = script.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
            tracing::warn!(
                "`listen` has changed to {address}. The host listens on {} until a restart.",
                live.address
            );
            live.listen = script.listen;
        }
        if script.tls != live.tls {
            tracing::warn!("`tls` has changed. The host uses the old files until a restart.");
            live.tls = script.tls;
        }
        let credentials = self.credentials(script.credentials);
        if credentials == live.keys.credentials() {
            return;
        }
        if credentials.accepts_everyone() && !live.address.ip().is_loopback() {
            tracing::warn!(
                "the script has neither `token` nor `keys`, and other machines can reach {}. The old ones stay valid. \
                 Set new ones, or restart on a loopback address.",
                live.address
            );
            return;
        }
        live.keys.replace(credentials);
        tracing::info!("`token` or `keys` have changed. The host refuses the old ones.");
    }
}

/// The state of the running server that a reload changes.
struct LiveState {
    table: Arc<ModelTable>,
    keys: Arc<ApiKeys>,
    web: Arc<WebNames>,
    address: SocketAddr,
    /// `listen` of the script.
    listen: Option<String>,
    /// `tls` of the script.
    tls: Option<CertificatePaths>,
}

/// Prints what the host serves, and where.
fn print_address(names: &[&str], address: SocketAddr, encryption: &Encryption) {
    let scheme = if encryption.tls.is_some() { "https" } else { "http" };
    eprintln!("tightwad serves {} at {scheme}://{address}/v1", names.join(", "));
    if encryption.tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(
            "texts and keys of clients cross the network without encryption. Set `tls` in tw.serve."
        );
    }
}

/// The encryption of an endpoint. With a certificate, other machines must use it.
fn endpoint_encryption(paths: Option<CertificatePaths>) -> Result<Encryption> {
    let Some(paths) = paths else { return Ok(Encryption::default()) };
    let files = Arc::new(CertificateFiles::load(paths)?);
    Ok(Encryption { tls: Some(ServerTls::of_endpoint(files)?), plain: PlainAccess::Loopback })
}
