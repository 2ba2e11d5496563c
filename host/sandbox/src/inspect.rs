//! Describes the file of a plugin, for people and for the list of a plugins folder.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};
use tightwad_core::to_hex;

use crate::contract;
use crate::error::PluginError;
use crate::library::{Library, read_file};
use crate::world::World;

/// The description of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginDescription {
    /// The name that scripts use.
    pub name: String,
    /// The file. Absent for a built-in plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// True if the file replaces a built-in plugin of the same name and kind.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replaces_built_in: bool,
    /// The exported interface, which identifies the kind of plugin.
    pub exports: &'static str,
    /// The component's own name and version.
    pub label: String,
    /// True if the component cannot change an answer, only its speed.
    pub exact: bool,
    /// The imported interfaces.
    pub imports: Vec<String>,
    /// The size of the file.
    pub bytes: usize,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// A plugin in a list, or its error.
pub type ListedPlugin = Result<PluginDescription, PluginError>;

/// Loads a component of any kind of the `library`, and describes it.
///
/// # Errors
///
/// Returns [`PluginError`] if the component cannot be used.
pub async fn inspect(
    library: &Library,
    name: &str,
    path: Option<&Path>,
    wasm: &[u8],
) -> Result<PluginDescription, PluginError> {
    let (engine, kinds) = (library.engine(), library.kinds());
    let worlds: Vec<World> = kinds.iter().map(|kind| kind.world).collect();
    let compiled = contract::compile(engine, name, wasm, &worlds).await?;
    let kind = kinds.iter().find(|kind| kind.world == compiled.world);
    let kind = kind.ok_or_else(|| contract::mismatch(name, "its kind is not known".to_owned()))?;
    let label = (kind.describe)(engine, name, &compiled).await?;
    Ok(PluginDescription {
        name: name.to_owned(),
        path: path.map(Path::to_owned),
        replaces_built_in: path.is_some() && kind.built_in.iter().any(|(built_in, _)| *built_in == name),
        exports: compiled.world.interface,
        label,
        exact: (kind.is_exact)(&compiled),
        imports: compiled.imports,
        bytes: wasm.len(),
        sha256: compiled.sha256,
    })
}

/// Lists every plugin that scripts can name: the files of the folders, and the built-in plugins that no file replaces.
/// The list contains invalid files with their errors. An unchanged plugin of `previous` is not compiled again.
pub async fn list(library: &Library, previous: &[ListedPlugin]) -> Vec<ListedPlugin> {
    let mut listed = Vec::new();
    let mut names = Vec::new();
    for path in library.folders().iter().flat_map(|folder| component_files(folder)) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if names.contains(&name) {
            continue;
        }
        listed.push(match read_file(&name, &path).await {
            Ok(wasm) => list_plugin(library, previous, &name, Some(&path), &wasm).await,
            Err(error) => Err(error),
        });
        names.push(name);
    }
    for (name, wasm) in library.kinds().iter().flat_map(|kind| kind.built_in) {
        if !names.iter().any(|listed_name| listed_name == name) {
            listed.push(list_plugin(library, previous, name, None, wasm).await);
        }
    }
    listed
}

/// Returns the description in `previous` if the plugin is unchanged, or inspects the plugin.
async fn list_plugin(
    library: &Library,
    previous: &[ListedPlugin],
    name: &str,
    path: Option<&Path>,
    wasm: &[u8],
) -> ListedPlugin {
    let sha256 = to_hex(&Sha256::digest(wasm));
    let is_equal = |plugin: &PluginDescription| {
        plugin.name == name && plugin.path.as_deref() == path && plugin.sha256 == sha256
    };
    match previous.iter().find(|listed| listed.as_ref().is_ok_and(is_equal)) {
        Some(listed) => listed.clone(),
        None => inspect(library, name, path, wasm).await,
    }
}

/// The components in a folder, sorted by name.
fn component_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "wasm")).collect();
    files.sort();
    files
}
