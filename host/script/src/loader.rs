//! Loads scripts: from a file to backends by name.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tightwad_core::{Credentials, SharedBackend, WatchedFiles};
use tightwad_net::door::WebNames;
use tightwad_net::tls::CertificatePaths;

use crate::api::arg::Listing;
use crate::argument::Argument;
use crate::error::ScriptError;
use crate::factory::Factory;
use crate::made_values::MadeValues;
use crate::pipeline::Pipeline;
use crate::source::{Purpose, Source};
use crate::state::LuaState;

/// A loaded script.
pub struct Script {
    /// The address to listen on, if the script gives one.
    pub listen: Option<String>,
    /// The token and the keys of clients.
    pub credentials: Credentials,
    /// The host names and web origins that may use the server.
    pub web: Arc<WebNames>,
    /// The certificate of the endpoint, if the script gives one.
    pub tls: Option<CertificatePaths>,
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
    load_watched(path, factory, arguments, &Arc::default()).await
}

/// Like [`load`]. `files` receives the script and its modules, also if the script fails.
///
/// # Errors
///
/// [`ScriptError`] with file and line.
pub async fn load_watched(
    path: &Path,
    factory: Arc<dyn Factory>,
    arguments: &[(String, String)],
    files: &Arc<WatchedFiles>,
) -> Result<Script, ScriptError> {
    files.clear();
    files.record(path);
    let (display_name, text) = read(path)?;
    let source = Source {
        folder: folder(path).to_owned(),
        files: files.clone(),
        ..source(&display_name, text, Purpose::Serve(factory), arguments)
    };
    run(source).await
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
    let source = source(display_name, text, Purpose::Serve(factory), arguments);
    run(Source { folder: folder.to_owned(), ..source }).await
}

async fn run(source: Source) -> Result<Script, ScriptError> {
    let source = Arc::new(source);
    let (state, loaded) = LuaState::start(&source).await?;
    // The first function continues in the state that loaded the script.
    let mut state = Some(state);
    let models = loaded.models.into_iter().map(|(name, backend)| {
        let backend = backend.unwrap_or_else(|| Arc::new(Pipeline::new(&name, &source, state.take())));
        (name, backend)
    });
    Ok(Script {
        listen: loaded.listen,
        credentials: loaded.credentials,
        web: loaded.web,
        tls: loaded.tls,
        models: models.collect(),
    })
}

/// A source in the working folder.
pub(crate) fn source(
    display_name: &str,
    text: Vec<u8>,
    purpose: Purpose,
    arguments: &[(String, String)],
) -> Source {
    Source {
        display_name: display_name.to_owned(),
        text,
        folder: PathBuf::from("."),
        purpose,
        arguments: arguments.to_vec(),
        files: Arc::default(),
        made: MadeValues::default(),
        modules: Mutex::default(),
    }
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
    let source = source(&display_name, text, Purpose::ListArguments(listing.clone()), &[]);
    let source = Source { folder: folder(path).to_owned(), ..source };
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
