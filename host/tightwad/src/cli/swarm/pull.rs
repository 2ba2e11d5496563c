//! `tightwad swarm pull`: fetches a model.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tightwad_core::{PluginSpec, Size, Token};
use tightwad_modes::swarm::{PullSpec, PulledModel};
use tightwad_modes::{Settings, swarm};
use tightwad_net::AllowedNetwork;
use tightwad_swarm::ModelRef;
use tightwad_swarm::net::{self as net, Peer, PullLimits, Seeding, Seeds};

use crate::app::factory::HostFactory;
use crate::app::plugin_folders;
use crate::app::progress::{summary, with_progress};
use crate::cli::args::{models_dir, rate_limit};
use crate::cli::listen;
use crate::cli::machine::MachineArgs;
use crate::cli::swarm::seed::seed_state;
use crate::cli::token::TokenParser;

/// Fetches a model from all peers that have pieces of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Pull {
    /// NAME, NAME@DIGEST or DIGEST. Only a complete digest pins the file.
    model: ModelRef,
    /// File or folder to write to. Default: the user's models. In a folder, the file gets the NAME. Without a NAME, it
    /// gets the model's own name and the start of the digest.
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Address of a peer. Repeatable. Default: all seeders found on the local network.
    #[arg(long, value_parser = crate::cli::args::peer, value_name = "URL")]
    peer: Vec<Peer>,
    /// The same file on a web server, as one more source. Repeatable. The manifest still comes from a peer.
    #[arg(long, value_parser = parse_web_seed, value_name = "URL")]
    web_seed: Vec<Peer>,
    /// Local file that may share blocks with the model. Repeatable. Files with a manifest in the output folder are
    /// always used.
    #[arg(long, value_name = "FILE")]
    reuse: Vec<PathBuf>,
    /// Fetches only the pieces of these layers, such as 0..16. The rest of the file stays empty.
    #[arg(long, value_name = "A..B", value_parser = parse_layers)]
    layers: Option<Range<u32>>,
    /// Token of the peers. It is proved to encrypted ones, and sent only to plain ones that --peer names.
    #[arg(long, env = "TIGHTWAD_SWARM_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Download limit in bytes per second, such as 10M.
    #[arg(long, value_name = "SIZE")]
    max_download_rate: Option<Size>,
    /// Upload limit in bytes per second.
    #[arg(long, value_name = "SIZE")]
    max_upload_rate: Option<Size>,
    /// Address to seed complete pieces at during the pull. Addresses other than loopback need --seed-token or a paired
    /// machine.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Token that other machines must know.
    #[arg(long, env = "TIGHTWAD_SWARM_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    seed_token: Option<Token>,
    /// Seeds only to this address or network. Repeatable.
    #[arg(long, value_name = "ADDR")]
    allow: Vec<AllowedNetwork>,
    /// Uploads that run at the same time.
    #[arg(long, default_value_t = 4)]
    max_uploads: usize,
    #[command(flatten)]
    machine: MachineArgs,
    /// Continues to seed when the file is complete.
    #[arg(long, requires = "listen")]
    keep_seeding: bool,
    /// Requests to one peer at the same time.
    #[arg(long, default_value_t = PullLimits::default().max_requests_per_peer)]
    max_requests_per_peer: u32,
    /// Seconds without data after which a request is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = PullLimits::default().stall_timeout.as_secs())]
    stall_timeout: u64,
    /// Seconds below 1 KiB per second from all peers after which the pull ends.
    #[arg(long, value_name = "SECONDS", default_value_t = PullLimits::default().timeout.as_secs())]
    timeout: u64,
    /// Replaces a different file that --output or NAME names.
    #[arg(long)]
    replace: bool,
    /// Piece picker: a plugin's name or .wasm file.
    #[arg(long, default_value = "swarm")]
    picker: String,
    /// SHA-256 that the piece picker must have.
    #[arg(long, value_name = "DIGEST")]
    picker_sha256: Option<String>,
    /// Setting of the piece picker, such as order=random. Repeatable.
    #[arg(long = "picker-setting", value_name = "KEY=VALUE", value_parser = crate::cli::args::key_value)]
    picker_settings: Vec<(String, String)>,
    /// Prints JSON: one line per second, and one at the end.
    #[arg(long)]
    json: bool,
}

fn parse_web_seed(text: &str) -> Result<Peer, String> {
    Peer::web_seed(text).map_err(|error| error.to_string())
}

fn parse_layers(text: &str) -> Result<Range<u32>, String> {
    let numbers = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    numbers.map(|(from, to)| from..to).ok_or_else(|| "expected A..B, such as 0..16".to_owned())
}

impl Pull {
    pub(crate) async fn run(self) -> Result<()> {
        self.machine.check_peers(&self.peer)?;
        let factory = HostFactory::new(plugin_folders::library(None, None)?);
        let picker = PluginSpec { name: self.picker.clone(), sha256: self.picker_sha256.clone() };
        let picker = factory.piece_picker(&picker).await.map_err(anyhow::Error::msg)?;
        let (seeding, seeder_task) = self.start_seeder().await?;
        let output = match self.output.clone() {
            Some(path) => path,
            None => models_dir()?,
        };
        let spec = self.spec(output, seeding.clone());
        let name = self.model.to_string();
        let pulling = with_progress(&name, self.json, |progress| swarm::pull(spec, &picker, progress));
        let pulled = tokio::select! {
            pulled = pulling => pulled?,
            () = listen::shutdown_signal()? => anyhow::bail!("interrupted. Fetched pieces are kept. Run the same command to continue."),
        };
        println!("{}", if self.json { summary_json(&pulled).to_string() } else { summary(&pulled) });
        if let (Some(seeding), Some(seeder_task), true) = (seeding, seeder_task, self.keep_seeding) {
            seeding.seeds.add(pulled.store.clone());
            eprintln!("still seeding. Press Ctrl-C to end.");
            seeder_task.await??;
        }
        Ok(())
    }

    fn spec(&self, to: PathBuf, seeding: Option<Seeding>) -> PullSpec {
        let limits = PullLimits {
            max_requests_per_peer: self.max_requests_per_peer.max(1),
            stall_timeout: Duration::from_secs(self.stall_timeout.max(1)),
            timeout: Duration::from_secs(self.timeout.max(1)),
            rate_limit: rate_limit(self.max_download_rate),
            ..PullLimits::default()
        };
        PullSpec {
            wanted: self.model.clone(),
            to,
            peers: self.peer.iter().chain(&self.web_seed).cloned().collect(),
            token: self.token.clone(),
            layers: self.layers.clone(),
            reuse: self.reuse.clone(),
            limits,
            seeding,
            replace: self.replace,
            settings: settings(&self.picker_settings),
        }
    }

    /// Starts a seeder. `None` without `--listen`.
    async fn start_seeder(
        &self,
    ) -> Result<(Option<Seeding>, Option<tokio::task::JoinHandle<std::io::Result<()>>>)> {
        let Some(listen) = &self.listen else { return Ok((None, None)) };
        let token_source = "--seed-token or TIGHTWAD_SWARM_TOKEN";
        let server = self.machine.bind(listen, self.seed_token.clone(), token_source).await?;
        let seeds = Arc::new(Seeds::new());
        let seeding = server.seeding(&seeds)?;
        eprintln!("seeding complete pieces at {}", server.url()?);
        let state = seed_state(&seeds, server.token.clone(), &self.allow)
            .upload_slots(self.max_uploads)
            .rate_limit(rate_limit(self.max_upload_rate));
        let served = net::serve(server.listener, state, server.encryption, listen::shutdown_signal()?);
        let seeder_task = tokio::spawn(served);
        Ok((Some(seeding), Some(seeder_task)))
    }
}

/// The picker's settings. A value that parses as a number is a number.
fn settings(pairs: &[(String, String)]) -> Settings {
    let value = |text: &str| match text.parse::<f64>() {
        Ok(number) if number.is_finite() => json!(number),
        _ => json!(text),
    };
    let object: serde_json::Map<_, _> = pairs.iter().map(|(key, text)| (key.clone(), value(text))).collect();
    object.into()
}

/// The summary of a pull as JSON.
fn summary_json(pulled: &PulledModel) -> serde_json::Value {
    let summary = pulled.summary.clone().unwrap_or_default();
    let from =
        summary.bytes_by_peer.iter().map(|(peer, bytes)| json!({"peer": peer.to_string(), "bytes": bytes}));
    json!({
        "path": pulled.path, "name": pulled.manifest.name(), "root": pulled.manifest.root(),
        "size": pulled.manifest.size(), "local_bytes": pulled.local_bytes, "reused_bytes": pulled.reused_bytes,
        "fetched_bytes": summary.kept_bytes, "wasted_bytes": summary.wasted_bytes,
        "corrupt_blocks": summary.corrupt_blocks, "duplicate_blocks": summary.duplicate_blocks,
        "banned_peers": summary.banned_peers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "picker_error": summary.picker_error, "seconds": summary.elapsed.as_secs_f64(),
        "from": from.collect::<Vec<_>>(),
    })
}
