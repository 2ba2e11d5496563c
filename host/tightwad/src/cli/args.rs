//! Arguments that commands share.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tightwad_core::{Size, user_data_dir};
use tightwad_net::{InvalidUrl, ServerUrl};
use tightwad_swarm::net::{Peer, RateLimit};

/// The folder of the user's models. Creates a missing folder.
pub(crate) fn models_dir() -> Result<PathBuf> {
    let folder = user_data_dir().context("HOME is not set. Name a folder with --output.")?.join("models");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Parses KEY=VALUE.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Parses the address of a seeder.
pub(crate) fn peer(text: &str) -> Result<Peer, String> {
    Peer::seeder(text).map_err(|error| error.to_string())
}

/// Parses the address of an endpoint.
pub(crate) fn endpoint_url(text: &str) -> Result<ServerUrl, String> {
    let url: ServerUrl = text.parse().map_err(|error: InvalidUrl| error.to_string())?;
    if url.is_encrypted() { Err(InvalidUrl::Machine(url.to_string()).to_string()) } else { Ok(url) }
}

/// A limit in bytes per second.
pub(crate) fn rate_limit(size: Option<Size>) -> Option<std::sync::Arc<RateLimit>> {
    size.map(|size| std::sync::Arc::new(RateLimit::new(size.0)))
}
