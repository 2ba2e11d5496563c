//! `tightwad swarm`: models spread from machine to machine.

mod manifest;
pub(crate) mod pull;
pub(crate) mod seed;
mod status;

use anyhow::Result;

/// Spreads models from machine to machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Swarm {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes a model's manifest, keeps it beside the file, and says by which digest the model is known.
    Manifest(manifest::Manifest),
    /// Lets other machines have models of this one.
    Seed(seed::Seed),
    /// Fetches a model from every machine that has any of it.
    Pull(Box<pull::Pull>),
    /// Shows what seeders have.
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
