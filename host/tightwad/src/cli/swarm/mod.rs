//! `tightwad swarm`: spreads models peer to peer.

mod manifest;
pub(crate) mod pull;
pub(crate) mod seed;
mod status;

use anyhow::Result;

/// Spreads models peer to peer.
#[derive(Debug, clap::Args)]
pub(crate) struct Swarm {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes the manifest of a model, stores it beside the file, and prints the digest.
    Manifest(manifest::Manifest),
    /// Serves model files to other machines.
    Seed(seed::Seed),
    /// Fetches a model from all peers that have pieces of it.
    Pull(Box<pull::Pull>),
    /// Lists the models of the seeders.
    Status(status::Status),
}

impl Swarm {
    pub(crate) async fn run(self) -> Result<()> {
        match self.command {
            Command::Manifest(manifest) => manifest.run().await,
            Command::Seed(seed) => seed.run().await,
            Command::Pull(pull) => pull.run().await,
            Command::Status(status) => status.run().await,
        }
    }
}
