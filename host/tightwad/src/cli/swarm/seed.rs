//! `tightwad swarm seed`, and seeding by other commands.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use tightwad_core::{Size, Token};
use tightwad_modes::swarm;
use tightwad_net::{AllowedNetwork, Announcement};
use tightwad_swarm::net::{self as net, SeedState, Seeds};

use crate::app::progress::hashing;
use crate::cli::args::rate_limit;
use crate::cli::listen;
use crate::cli::machine::MachineArgs;
use crate::cli::token::TokenParser;

/// Serves model files to other machines.
#[derive(Debug, clap::Args)]
pub(crate) struct Seed {
    /// Model files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Address to listen on. Addresses other than loopback need a token or a paired machine.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7712")]
    listen: String,
    /// Token that other machines must know.
    #[arg(long, env = "TIGHTWAD_SWARM_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Seeds only to this address or network, such as 192.168.1.0/24. Repeatable.
    #[arg(long, value_name = "ADDR")]
    allow: Vec<AllowedNetwork>,
    /// Upload limit in bytes per second, such as 10M.
    #[arg(long, value_name = "SIZE")]
    max_upload_rate: Option<Size>,
    /// Uploads that run at the same time. Few uploads complete pieces sooner on other machines.
    #[arg(long, default_value_t = 4)]
    max_uploads: usize,
    /// Greatest size of a piece. Default: the size in the manifest beside the file, or 64M.
    #[arg(long, value_name = "SIZE")]
    piece_size: Option<Size>,
    /// Does not announce the seeder on the local network.
    #[arg(long)]
    no_announce: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

impl Seed {
    pub(crate) async fn run(self) -> Result<()> {
        let server = self.machine.bind(&self.listen, self.token, "--token or TIGHTWAD_SWARM_TOKEN").await?;
        let seeds = Arc::new(Seeds::new());
        for file in &self.files {
            let seeded = seed_file(&seeds, file, None, self.piece_size.map(|size| size.0)).await?;
            eprintln!("{} is {}@{}", file.display(), seeded.name, seeded.root);
        }
        let (address, encrypted) = (server.listener.local_addr()?, server.is_encrypted());
        let state = seed_state(&seeds, server.token.clone(), &self.allow)
            .upload_slots(self.max_uploads)
            .rate_limit(rate_limit(self.max_upload_rate));
        eprintln!("tightwad seeds {} at {}", model_names(&seeds), server.url()?);
        let _announcement = (!self.no_announce)
            .then(|| listen::optional_announcement("seeder", Announcement::seeder(address, encrypted)))
            .flatten();
        Ok(net::serve(server.listener, state, server.encryption, listen::shutdown_signal()?).await?)
    }
}

/// Name and digest of a seeded model.
pub(crate) struct SeededModel {
    pub name: String,
    pub root: String,
}

/// Seeds a complete file. A file without a manifest beside it is hashed first.
pub(crate) async fn seed_file(
    seeds: &Arc<Seeds>,
    file: &Path,
    name: Option<&str>,
    piece_size: Option<u64>,
) -> Result<SeededModel> {
    let bytes = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
    let store =
        swarm::open_complete(file, name, piece_size, hashing(&file.display().to_string(), bytes)).await?;
    let (name, root) = (store.manifest().name().to_owned(), store.manifest().root().to_string());
    seeds.add(store);
    Ok(SeededModel { name, root })
}

fn model_names(seeds: &Seeds) -> String {
    let stores = seeds.stores();
    let names: Vec<&str> = stores.iter().map(|store| store.manifest().name()).collect();
    names.join(", ")
}

/// The seeder's state. An empty allow list admits every address.
pub(crate) fn seed_state(seeds: &Arc<Seeds>, token: Option<Token>, allowed: &[AllowedNetwork]) -> SeedState {
    let allowed = allowed.to_vec();
    let allows = move |address| allowed.is_empty() || allowed.iter().any(|network| network.contains(address));
    SeedState::new(seeds.clone()).access(token, allows)
}
