//! What a plugin's file is: for people, and for the folder's list.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::contract::{self, Compiled, Kind};
use super::library::{BUILT_IN, read};
use super::{
    GatePlugin, GatePolicyPlugin, Library, Loaded, PlacementPlugin, Plugin, PluginEngine, PluginError,
    PolicyPlugin, SwarmPlugin,
};
use crate::types::hexadecimal;

/// What a component is and wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspected {
    /// The name that scripts use.
    pub name: String,
    /// Its file; absent: it is built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The interface that it exports: what it is for.
    pub exports: &'static str,
    /// What it calls itself, and its version.
    pub label: String,
    /// True for what can only be slow, never wrong.
    pub exact: bool,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// Bytes of the file.
    pub bytes: usize,
    /// Of the file, in hexadecimal.
    pub sha256: String,
}

/// Loads a component of any kind, and says what it is.
///
/// # Errors
///
/// [`PluginError`] when it cannot be used.
pub async fn inspect(
    engine: &Arc<PluginEngine>,
    name: &str,
    path: Option<&Path>,
    wasm: &[u8],
) -> Result<Inspected, PluginError> {
    let compiled = contract::compile(engine, name, wasm, None).await?;
    let label = match compiled.kind {
        Kind::Mode => label::<Plugin>(engine, name, &compiled).await?,
        Kind::ConsensusPolicy => label::<PolicyPlugin>(engine, name, &compiled).await?,
        Kind::Gate => label::<GatePlugin>(engine, name, &compiled).await?,
        Kind::GatePolicy => label::<GatePolicyPlugin>(engine, name, &compiled).await?,
        Kind::Placement => label::<PlacementPlugin>(engine, name, &compiled).await?,
        Kind::Swarm => label::<SwarmPlugin>(engine, name, &compiled).await?,
    };
    let exact = match compiled.kind {
        Kind::Mode => !compiled.imports("unverified"),
        Kind::ConsensusPolicy | Kind::Gate | Kind::GatePolicy => false,
        Kind::Placement | Kind::Swarm => true,
    };
    Ok(Inspected {
        name: name.to_owned(),
        path: path.map(Path::to_owned),
        exports: compiled.kind.interface(),
        label,
        exact,
        imports: compiled.imports,
        bytes: wasm.len(),
        sha256: compiled.sha256,
    })
}

async fn label<P: Loaded>(
    engine: &Arc<PluginEngine>,
    name: &str,
    compiled: &Compiled,
) -> Result<String, PluginError> {
    Ok(P::link(engine, name, compiled).await?.label().to_owned())
}

/// One file of a plugins folder, or a built-in plugin.
pub type Listed = Result<Inspected, PluginError>;

impl Library {
    /// Every plugin that scripts can name: files of the folders, and built-in ones that none of them
    /// replaces. Bad files are among them, with what is wrong. What is the same as `before` is not compiled
    /// again.
    pub async fn list(&self, before: &[Listed]) -> Vec<Listed> {
        let mut listed = Vec::new();
        let mut names = Vec::new();
        for path in self.folders().iter().flat_map(|folder| files(folder)) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if names.contains(&name) {
                continue;
            }
            listed.push(match read(&name, &path).await {
                Ok(wasm) => self.one(before, &name, Some(&path), &wasm).await,
                Err(error) => Err(error),
            });
            names.push(name);
        }
        for (_, name, wasm) in BUILT_IN {
            if !names.iter().any(|own| own == name) {
                listed.push(self.one(before, name, None, wasm).await);
            }
        }
        listed
    }

    /// One of them, as it was before or as it is found now.
    async fn one(&self, before: &[Listed], name: &str, path: Option<&Path>, wasm: &[u8]) -> Listed {
        let sha256 = hexadecimal(&Sha256::digest(wasm));
        let is = |plugin: &Inspected| plugin.path.as_deref() == path && plugin.sha256 == sha256;
        let same = |one: &&Listed| one.as_ref().is_ok_and(|plugin| plugin.name == name && is(plugin));
        match before.iter().find(same) {
            Some(one) => one.clone(),
            None => inspect(self.engine(), name, path, wasm).await,
        }
    }
}

/// The components in a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "wasm")).collect();
    files.sort();
    files
}
