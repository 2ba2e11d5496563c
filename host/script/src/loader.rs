//! Loads scripts: from a file to backends by name.

use std::path::Path;
use std::sync::Arc;

use tightwad_core::{SharedBackend, Token};

use crate::api::arg::Listing;
use crate::argument::Argument;
use crate::error::ScriptError;
use crate::factory::Factory;
use crate::pipeline::{Pipeline, ScriptFunctions};
use crate::source::{Purpose, Source};
use crate::state::LuaState;

/// A loaded script.
pub struct Script {
    /// The address to listen on, if the script gives one.
    pub listen: Option<String>,
    /// The bearer token of clients, if the script gives one.
    pub token: Option<Token>,
    /// Backends by the names that clients use, sorted.
    pub models: Vec<(String, SharedBackend)>,
}

/// Runs the script at `path`. `arguments` are names and texts from the command line, for `tw.arg`.
///
/// # Errors
///
/// [`ScriptError`] with file and line.
pub async fn load(
    path: &Path,
    factory: Arc<dyn Factory>,
    arguments: &[(String, String)],
) -> Result<Script, ScriptError> {
    let (display_name, text) = read(path)?;
    load_text(&display_name, text, folder(path), factory, arguments).await
}

/// Runs a script that is not a file. Errors use `display_name`, and relative paths in the script start at `folder`.
///
/// # Errors
///
/// [`ScriptError`] with the line.
pub async fn load_text(
    display_name: &str,
    text: Vec<u8>,
    folder: &Path,
    factory: Arc<dyn Factory>,
    arguments: &[(String, String)],
) -> Result<Script, ScriptError> {
    let source = Source {
        display_name: display_name.to_owned(),
        text,
        folder: folder.to_owned(),
        purpose: Purpose::Serve(factory),
        arguments: arguments.to_vec(),
    };
    let (functions, loaded) = ScriptFunctions::load(source).await?;
    let models = loaded.models.into_iter().map(|(name, backend)| {
        let backend = backend.unwrap_or_else(|| Arc::new(Pipeline::new(&name, functions.clone())));
        (name, backend)
    });
    Ok(Script { listen: loaded.listen, token: loaded.token, models: models.collect() })
}

/// The arguments that the script at `path` declares. The script stops at its first function of `tw`, so it loads no
/// model. Must be called within a tokio runtime.
///
/// # Errors
///
/// [`ScriptError`] if the script fails before it declares its arguments.
pub async fn declared_arguments(path: &Path) -> Result<Vec<Argument>, ScriptError> {
    let (display_name, text) = read(path)?;
    let listing = Listing::default();
    let source = Source {
        display_name,
        text,
        folder: folder(path).to_owned(),
        purpose: Purpose::ListArguments(listing.clone()),
        arguments: Vec::new(),
    };
    let stopped = LuaState::start(&Arc::new(source)).await;
    match (listing.get(), stopped) {
        (Some(arguments), _) => Ok(arguments.clone()),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Ok(Vec::new()),
    }
}

fn read(path: &Path) -> Result<(String, Vec<u8>), ScriptError> {
    let display_name = path.display().to_string();
    let text = std::fs::read(path)
        .map_err(|error| ScriptError::new(format!("cannot read the script {display_name}: {error}")))?;
    Ok((display_name, text))
}

fn folder(script: &Path) -> &Path {
    script.parent().unwrap_or(Path::new("."))
}
