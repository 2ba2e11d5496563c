//! `tightwad swarm status`.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tightwad_core::{Size, Token};
use tightwad_modes::swarm::seeders;
use tightwad_swarm::net::{Client, Peer, find};

use crate::cli::token::TokenParser;

/// Shows what seeders have.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// A seeder or a node; may be given several times. Default: those found on the local network.
    #[arg(long, value_parser = crate::cli::args::peer, value_name = "URL")]
    peer: Vec<Peer>,
    /// The token that they want to see.
    #[arg(long, env = "TIGHTWAD_NODE_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// How long to look for seeders, in seconds.
    #[arg(long, default_value_t = 3)]
    wait: u64,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn run(self) -> Result<()> {
        let mut peers = self.peer.clone();
        if peers.is_empty() {
            (peers, _) = seeders(Duration::from_secs(self.wait)).await?;
        }
        if peers.is_empty() {
            bail!("no seeder was found on this network: name one with --peer");
        }
        let client = Client::new(self.token.clone())?;
        let (found, reasons) = find(&client, &peers, None).await;
        for reason in &reasons {
            eprintln!("{reason}");
        }
        for model in &found {
            let from: Vec<String> = model.peers.iter().map(ToString::to_string).collect();
            if self.json {
                println!(
                    "{}",
                    json!({"name": model.name, "root": model.root, "size": model.size, "peers": from})
                );
            } else {
                println!("{}@{}  {}  {}", model.name, model.root, Size(model.size), from.join(" "));
            }
        }
        if found.is_empty() && reasons.len() == peers.len() {
            bail!("no seeder answered");
        }
        Ok(())
    }
}
