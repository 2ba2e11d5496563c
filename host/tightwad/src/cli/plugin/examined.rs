//! A component that a command looks at.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tightwad_sandbox::{Inspected, Library, inspect};

use crate::app::shelf;

/// Reads, loads and inspects a component.
pub(crate) async fn examined(file: &Path) -> Result<(Arc<Library>, Inspected)> {
    let library = shelf::library(None, None)?;
    let wasm = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let inspected = inspect(&library, &name, Some(file), &wasm).await?;
    Ok((library, inspected))
}
