//! What a plugin's file is: for people, and for the folder's list.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};
use tightwad_core::hexadecimal;

use crate::contract;
use crate::error::PluginError;
use crate::library::{Library, read};
use crate::world::World;

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

/// Loads a component of any kind that the `library` has, and says what it is.
///
/// # Errors
///
/// [`PluginError`] when it cannot be used.
pub async fn inspect(
    library: &Library,
    name: &str,
    path: Option<&Path>,
    wasm: &[u8],
) -> Result<Inspected, PluginError> {
    let (engine, kinds) = (library.engine(), library.kinds());
    let worlds: Vec<World> = kinds.iter().map(|kind| kind.world).collect();
    let compiled = contract::compile(engine, name, wasm, &worlds).await?;
    let kind = kinds.iter().find(|kind| kind.world == compiled.world);
    let kind = kind.ok_or_else(|| contract::unfit(name, "its kind is not known".to_owned()))?;
    let label = (kind.describe)(engine, name, &compiled).await?;
    Ok(Inspected {
        name: name.to_owned(),
        path: path.map(Path::to_owned),
        exports: compiled.world.interface,
        label,
        exact: (kind.is_exact)(&compiled),
        imports: compiled.imports,
        bytes: wasm.len(),
        sha256: compiled.sha256,
    })
}

/// One file of a plugins folder, or a built-in plugin.
pub type Listed = Result<Inspected, PluginError>;

/// Every plugin that scripts can name: files of the folders, and built-in ones that none of them replaces. Bad files
/// are among them, with what is wrong. What is the same as `before` is not compiled again.
pub async fn list(library: &Library, before: &[Listed]) -> Vec<Listed> {
    let mut listed = Vec::new();
    let mut names = Vec::new();
    for path in library.folders().iter().flat_map(|folder| files(folder)) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if names.contains(&name) {
            continue;
        }
        listed.push(match read(&name, &path).await {
            Ok(wasm) => one(library, before, &name, Some(&path), &wasm).await,
            Err(error) => Err(error),
        });
        names.push(name);
    }
    for (name, wasm) in library.kinds().iter().flat_map(|kind| kind.built_in) {
        if !names.iter().any(|own| own == name) {
            listed.push(one(library, before, name, None, wasm).await);
        }
    }
    listed
}

/// One of them, as it was before or as it is found now.
async fn one(library: &Library, before: &[Listed], name: &str, path: Option<&Path>, wasm: &[u8]) -> Listed {
    let sha256 = hexadecimal(&Sha256::digest(wasm));
    let is = |plugin: &Inspected| plugin.path.as_deref() == path && plugin.sha256 == sha256;
    let same = |one: &&Listed| one.as_ref().is_ok_and(|plugin| plugin.name == name && is(plugin));
    match before.iter().find(same) {
        Some(one) => one.clone(),
        None => inspect(library, name, path, wasm).await,
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
