//! What a plugin's file is: for people, and for the folder's list.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::contract::{self, Kind};
use super::library::{BUILT_IN, read};
use super::{
    GatePlugin, GatePolicyPlugin, Library, PlacementPlugin, Plugin, PluginEngine, PluginError, PolicyPlugin,
};

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
        Kind::Mode => Plugin::load(engine, name, wasm).await?.label().to_owned(),
        Kind::ConsensusPolicy => PolicyPlugin::load(engine, name, wasm).await?.label().to_owned(),
        Kind::Gate => GatePlugin::load(engine, name, wasm).await?.label().to_owned(),
        Kind::GatePolicy => GatePolicyPlugin::load(engine, name, wasm).await?.label().to_owned(),
        Kind::Placement => PlacementPlugin::load(engine, name, wasm).await?.label().to_owned(),
    };
    let exact = match compiled.kind {
        Kind::Mode => !compiled.imports("unverified"),
        Kind::ConsensusPolicy | Kind::Gate | Kind::GatePolicy => false,
        Kind::Placement => true,
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

/// One file of a plugins folder, or a built-in plugin.
pub type Listed = Result<Inspected, PluginError>;

impl Library {
    /// Every plugin that scripts can name: files of the folders, and built-in ones that none of them
    /// replaces. Bad files are among them, with what is wrong.
    pub async fn list(&self) -> Vec<Listed> {
        let mut listed = Vec::new();
        let mut names = Vec::new();
        for path in self.folders().iter().flat_map(|folder| files(folder)) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if names.contains(&name) {
                continue;
            }
            listed.push(match read(&name, &path).await {
                Ok(wasm) => inspect(self.engine(), &name, Some(&path), &wasm).await,
                Err(error) => Err(error),
            });
            names.push(name);
        }
        for (_, name, wasm) in BUILT_IN {
            if !names.iter().any(|own| own == name) {
                listed.push(inspect(self.engine(), name, None, wasm).await);
            }
        }
        listed
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
