//! `tightwad swarm status`: lists the models of the seeders.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tightwad_core::{Size, Token};
use tightwad_modes::swarm::{find_seeders, machine_key};
use tightwad_swarm::net::{Client, Peer, find_models};

use crate::cli::machine::MachineArgs;
use crate::cli::token::TokenParser;

/// Lists the models of the seeders.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Address of a seeder or node. Repeatable. Default: all seeders found on the local network.
    #[arg(long, value_parser = crate::cli::args::peer, value_name = "URL")]
    peer: Vec<Peer>,
    /// Token of the seeders. It is proved to encrypted ones, and sent only to plain ones that --peer names.
    #[arg(long, env = "TIGHTWAD_SWARM_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Seconds to look for seeders on the local network.
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    discovery_time: u64,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn run(self) -> Result<()> {
        self.machine.check_peers(&self.peer)?;
        let mut peers = self.peer.clone();
        if peers.is_empty() {
            (peers, _) = find_seeders(Duration::from_secs(self.discovery_time)).await?;
        }
        if peers.is_empty() {
            bail!("no seeder is announced on this network. Name one with --peer.");
        }
        let client = Client::new(self.token.clone(), &self.peer, machine_key())?;
        let (models, errors) = find_models(&client, &peers, None).await;
        for error in &errors {
            eprintln!("{error}");
        }
        for model in &models {
            let addresses: Vec<String> = model.peers.iter().map(ToString::to_string).collect();
            if self.json {
                println!(
                    "{}",
                    json!({"name": model.name, "root": model.root, "size": model.size, "peers": addresses})
                );
            } else {
                println!("{}@{}  {}  {}", model.name, model.root, Size(model.size), addresses.join(" "));
            }
        }
        if models.is_empty() && errors.len() == peers.len() {
            bail!("no seeder answered");
        }
        Ok(())
    }
}
