//! `tightwad swarm pull`.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tightwad_core::{Size, Token};
use tightwad_modes::swarm;
use tightwad_modes::swarm::{PullSpec, Pulled};
use tightwad_net::Allowed;
use tightwad_swarm::Wanted;
use tightwad_swarm::net::{self as net, Limits, Peer, Seeding, Seeds};

use crate::app::factory::HostFactory;
use crate::app::progress::{settled, watched};
use crate::app::shelf;
use crate::cli::args::{folder, limit};
use crate::cli::listen;
use crate::cli::swarm::seed::seed_state;
use crate::cli::token::TokenParser;

/// Fetches a model from every machine that has any of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Pull {
    /// NAME, NAME@DIGEST or DIGEST; only a whole digest pins the model whatever peers say.
    model: Wanted,
    /// Where to: a file or a folder. Default: the user's models.
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// A machine that may have it; may be given several times. Default: those found on the local network.
    #[arg(long, value_parser = crate::cli::args::peer, value_name = "URL")]
    peer: Vec<Peer>,
    /// The same file on a web server: one more source. A peer must still have the manifest.
    #[arg(long, value_parser = web, value_name = "URL")]
    from: Vec<Peer>,
    /// A file of this machine that may have a part of it; may be given several times. Files with a manifest
    /// beside the output are looked at in any case.
    #[arg(long, value_name = "FILE")]
    reuse: Vec<PathBuf>,
    /// Only what these layers need, such as 0..16; the rest of the file stays empty.
    #[arg(long, value_name = "A..B", value_parser = layers)]
    layers: Option<Range<u32>>,
    /// The token that seeders want to see.
    #[arg(long, env = "TIGHTWAD_NODE_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Most bytes a second that come in, such as 10M.
    #[arg(long, value_name = "SIZE")]
    down: Option<Size>,
    /// Most bytes a second that go out.
    #[arg(long, value_name = "SIZE")]
    up: Option<Size>,
    /// Seeds what is there while the rest comes, at this address; anything but loopback needs --seed-token.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The token that other machines must send for that.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    seed_token: Option<Token>,
    /// Seeds only to this address or network; may be given several times.
    #[arg(long, value_name = "ADDR")]
    allow: Vec<Allowed>,
    /// Uploads that run at a time.
    #[arg(long, default_value_t = 4)]
    uploads: usize,
    /// Goes on seeding when the file is complete.
    #[arg(long, requires = "listen")]
    stay: bool,
    /// Fetches from one machine at a time.
    #[arg(long, default_value_t = Limits::default().requests_a_peer)]
    requests: u32,
    /// Seconds after which a machine of which nothing comes is asked something else.
    #[arg(long, default_value_t = Limits::default().stall.as_secs())]
    stall: u64,
    /// Seconds after which a pull of which nothing comes ends.
    #[arg(long, default_value_t = Limits::default().give_up.as_secs())]
    give_up: u64,
    /// Replaces an older file.
    #[arg(long)]
    replace: bool,
    /// The plugin that picks what is fetched next.
    #[arg(long, default_value = "swarm")]
    plugin: String,
    /// What the plugin is told, such as order=random.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = crate::cli::args::setting)]
    settings: Vec<(String, String)>,
    /// Prints JSON: a line a second, and one at the end.
    #[arg(long)]
    json: bool,
}

fn web(text: &str) -> Result<Peer, String> {
    Peer::file(text).map_err(|error| error.to_string())
}

fn layers(text: &str) -> Result<Range<u32>, String> {
    let numbers = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    numbers.map(|(from, to)| from..to).ok_or_else(|| "layers have the form A..B, such as 0..16".to_owned())
}

impl Pull {
    pub(crate) async fn run(self) -> Result<()> {
        let factory = HostFactory::new(shelf::library(None, None)?);
        let plugin = factory.swarm(&self.plugin).await.map_err(anyhow::Error::msg)?;
        let (seeding, serving) = self.seeding().await?;
        let to = match self.output.clone() {
            Some(path) => path,
            None => folder()?,
        };
        let spec = self.spec(to, seeding.clone());
        let name = self.model.to_string();
        let pulling = watched(&name, self.json, |progress| swarm::pull(spec, &plugin, progress));
        let pulled = tokio::select! {
            pulled = pulling => pulled?,
            () = listen::interrupted()? => anyhow::bail!("interrupted; what was fetched is kept: pull again to go on"),
        };
        println!("{}", if self.json { figures(&pulled).to_string() } else { settled(&pulled) });
        if let (Some(seeding), Some(serving), true) = (seeding, serving, self.stay) {
            seeding.seeds.add(pulled.store.clone());
            eprintln!("seeding on; interrupt to end");
            serving.await??;
        }
        Ok(())
    }

    fn spec(&self, to: PathBuf, seeding: Option<Seeding>) -> PullSpec {
        let limits = Limits {
            requests_a_peer: self.requests.max(1),
            stall: Duration::from_secs(self.stall.max(1)),
            give_up: Duration::from_secs(self.give_up.max(1)),
            rate: limit(self.down),
            ..Limits::default()
        };
        PullSpec {
            wanted: self.model.clone(),
            to,
            peers: self.peer.iter().chain(&self.from).cloned().collect(),
            token: self.token.clone(),
            layers: self.layers.clone(),
            reuse: self.reuse.clone(),
            limits,
            seeding,
            replace: self.replace,
            settings: settings(&self.settings),
        }
    }

    /// A server for what comes, where it was asked for.
    async fn seeding(
        &self,
    ) -> Result<(Option<Seeding>, Option<tokio::task::JoinHandle<std::io::Result<()>>>)> {
        let Some(listen) = &self.listen else { return Ok((None, None)) };
        let mend = "--seed-token or TIGHTWAD_TOKEN";
        let listener = listen::bind(listen, self.seed_token.is_some(), mend).await?;
        let seeds = Arc::new(Seeds::new());
        let seeding = Seeding { seeds: seeds.clone(), port: Some(listener.local_addr()?.port()) };
        eprintln!("seeding what comes at http://{}", listener.local_addr()?);
        let state = seed_state(&seeds, self.seed_token.clone(), &self.allow)
            .turns(self.uploads)
            .limited(limit(self.up));
        let serving = tokio::spawn(net::serve(listener, state, listen::interrupted()?));
        Ok((Some(seeding), Some(serving)))
    }
}

/// `--set` as the plugin reads it.
fn settings(pairs: &[(String, String)]) -> String {
    let value = |text: &str| match text.parse::<f64>() {
        Ok(number) if number.is_finite() => json!(number),
        _ => json!(text),
    };
    let object: serde_json::Map<_, _> = pairs.iter().map(|(key, text)| (key.clone(), value(text))).collect();
    serde_json::Value::Object(object).to_string()
}

/// What a pull did, as JSON.
fn figures(pulled: &Pulled) -> serde_json::Value {
    let summary = pulled.summary.clone().unwrap_or_default();
    let from = summary.from.iter().map(|(peer, bytes)| json!({"peer": peer.to_string(), "bytes": bytes}));
    json!({
        "path": pulled.path, "name": pulled.manifest.name(), "root": pulled.manifest.root(),
        "size": pulled.manifest.size(), "here": pulled.here, "reused": pulled.reused, "fetched": summary.bytes,
        "wasted": summary.wasted, "corrupt": summary.corrupt, "duplicate": summary.duplicate,
        "banned": summary.banned.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "picker_failed": summary.picker_failed, "seconds": summary.took.as_secs_f64(),
        "from": from.collect::<Vec<_>>(),
    })
}
