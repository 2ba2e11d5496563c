//! The component that a command inspects.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tightwad_sandbox::{Library, PluginDescription, inspect};

use crate::app::plugin_folders;

/// Reads, loads and inspects a component.
pub(crate) async fn inspect_file(file: &Path) -> Result<(Arc<Library>, PluginDescription)> {
    let library = plugin_folders::library(None, None)?;
    let wasm = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let description = inspect(&library, &name, Some(file), &wasm).await?;
    Ok((library, description))
}
