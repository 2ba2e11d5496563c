//! `tightwad swarm seed`, and seeding beside other work.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use tightwad_core::{Size, Token};
use tightwad_modes::swarm;
use tightwad_net::{Allowed, Announcement};
use tightwad_swarm::net::{self as net, SeedState, Seeds};

use crate::app::progress::hashing;
use crate::cli::args::limit;
use crate::cli::listen;
use crate::cli::token::TokenParser;

/// Lets other machines have models of this one.
#[derive(Debug, clap::Args)]
pub(crate) struct Seed {
    /// Models' files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where to listen; anything but loopback needs a token.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7712")]
    listen: String,
    /// The bearer token that other machines must send.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Only for this address or network, such as 192.168.1.0/24; may be given several times.
    #[arg(long, value_name = "ADDR")]
    allow: Vec<Allowed>,
    /// Most bytes a second that go out, such as 10M.
    #[arg(long, value_name = "SIZE")]
    up: Option<Size>,
    /// Uploads that run at a time, to whomever: few share the uplink, so that pieces are soon whole elsewhere.
    #[arg(long, default_value_t = 4)]
    uploads: usize,
    /// Largest piece; default: that of the manifest beside the file, or 64M.
    #[arg(long, value_name = "SIZE")]
    piece: Option<Size>,
    /// Does not make itself known on the local network.
    #[arg(long)]
    quiet: bool,
}

impl Seed {
    pub(crate) async fn run(self) -> Result<()> {
        let listener = listen::bind(&self.listen, self.token.is_some(), "--token or TIGHTWAD_TOKEN").await?;
        let seeds = Arc::new(Seeds::new());
        for file in &self.files {
            let seeded = seeded(&seeds, file, None, self.piece.map(|piece| piece.0)).await?;
            eprintln!("{} is {}@{}", file.display(), seeded.name, seeded.root);
        }
        let address = listener.local_addr()?;
        let state =
            seed_state(&seeds, self.token.clone(), &self.allow).turns(self.uploads).limited(limit(self.up));
        eprintln!("tightwad seeds {} at http://{address}", named(&seeds));
        let _announcement =
            (!self.quiet).then(|| listen::announced("seeder", Announcement::seeder(address))).flatten();
        Ok(net::serve(listener, state, listen::interrupted()?).await?)
    }
}

/// A model that is seeded.
pub(crate) struct Seeded {
    pub name: String,
    pub root: String,
}

/// Seeds a whole file; it is hashed where no manifest lies beside it.
pub(crate) async fn seeded(
    seeds: &Arc<Seeds>,
    file: &Path,
    name: Option<&str>,
    piece: Option<u64>,
) -> Result<Seeded> {
    let bytes = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
    let store = swarm::whole(file, name, piece, hashing(&file.display().to_string(), bytes)).await?;
    let (name, root) = (store.manifest().name().to_owned(), store.manifest().root().to_string());
    seeds.add(store);
    Ok(Seeded { name, root })
}

fn named(seeds: &Seeds) -> String {
    let stores = seeds.stores();
    let names: Vec<&str> = stores.iter().map(|store| store.manifest().name()).collect();
    names.join(", ")
}

/// Serves those of an allow list, or everybody where it is empty.
pub(crate) fn seed_state(seeds: &Arc<Seeds>, token: Option<Token>, allowed: &[Allowed]) -> SeedState {
    let allowed = allowed.to_vec();
    let allows = move |address| allowed.is_empty() || allowed.iter().any(|own| own.has(address));
    SeedState::new(seeds.clone()).guarded(token, allows)
}
