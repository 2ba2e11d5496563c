//! From a file to backends by name.

use std::path::Path;
use std::sync::Arc;

use tightwad_core::{SharedBackend, Token};

use crate::error::ScriptError;
use crate::factory::Factory;
use crate::pipeline::{Functions, Pipeline};
use crate::state::Source;

/// A script that was loaded.
pub struct Script {
    /// Where to listen, when the script says so.
    pub listen: Option<String>,
    /// The bearer token, when the script says so.
    pub token: Option<Token>,
    /// Backends by the names that clients use, sorted.
    pub models: Vec<(String, SharedBackend)>,
}

/// Runs the script at `path`; `settings` are its `tw.settings`.
///
/// # Errors
///
/// [`ScriptError`] with file and line.
pub async fn load(
    path: &Path,
    factory: Arc<dyn Factory>,
    settings: &[(String, String)],
) -> Result<Script, ScriptError> {
    let shown = path.display().to_string();
    let source = std::fs::read(path)
        .map_err(|error| ScriptError::new(format!("cannot read the script {shown}: {error}")))?;
    load_text(&shown, source, path.parent().unwrap_or(Path::new(".")), factory, settings).await
}

/// Runs a script that is not a file. Errors call it `shown`, and relative paths in it start at `folder`.
///
/// # Errors
///
/// [`ScriptError`] with line.
pub async fn load_text(
    shown: &str,
    text: Vec<u8>,
    folder: &Path,
    factory: Arc<dyn Factory>,
    settings: &[(String, String)],
) -> Result<Script, ScriptError> {
    let (shown, folder, settings) = (shown.to_owned(), folder.to_owned(), settings.to_vec());
    let (functions, loaded) = Functions::load(Source { shown, text, folder, factory, settings }).await?;
    let models = loaded.models.into_iter().map(|(name, backend)| {
        let backend = backend.unwrap_or_else(|| Arc::new(Pipeline::new(&name, functions.clone())));
        (name, backend)
    });
    Ok(Script { listen: loaded.listen, token: loaded.token, models: models.collect() })
}
