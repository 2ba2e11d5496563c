//! Arguments that commands share.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tightwad_core::{Size, user_data};
use tightwad_swarm::net::{Peer, RateLimit};

/// The folder of the user's models; it is made where it is missing.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder =
        user_data().context("there is no HOME for models: say where to with --output")?.join("models");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a setting has the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `--peer`.
pub(crate) fn peer(text: &str) -> Result<Peer, String> {
    Peer::seeder(text).map_err(|error| error.to_string())
}

/// A limit of bytes a second.
pub(crate) fn limit(size: Option<Size>) -> Option<std::sync::Arc<RateLimit>> {
    size.map(|size| std::sync::Arc::new(RateLimit::new(size.0)))
}
