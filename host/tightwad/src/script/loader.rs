//! From a file to backends by name.

use std::path::Path;
use std::sync::Arc;

use mlua::Value;

use super::api::{self, Served};
use super::factory::Factory;
use super::handle::Handle;
use super::pipeline::Pipeline;
use super::{ScriptError, sandbox};
use crate::backend::SharedBackend;

/// A script that was loaded.
pub struct Script {
    /// Where to listen, when the script says so.
    pub listen: Option<String>,
    /// The bearer token, when the script says so.
    pub token: Option<String>,
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

/// Runs a script that is no file; errors call it `shown`, and relative paths in it start at `folder`.
///
/// # Errors
///
/// [`ScriptError`] with line.
pub async fn load_text(
    shown: &str,
    source: Vec<u8>,
    folder: &Path,
    factory: Arc<dyn Factory>,
    settings: &[(String, String)],
) -> Result<Script, ScriptError> {
    let (lua, limits) = sandbox::state()?;
    let tw = api::table(&lua, folder, &factory, settings)?;
    sandbox::set_require(&lua, folder, &tw)?;
    let chunk = lua.load(source).set_name(format!("@{shown}")).set_mode(mlua::chunk::ChunkMode::Text);
    let main = chunk.into_function()?;
    let value: Value = limits.run(main.call_async(())).await?;
    let served = match &value {
        Value::UserData(data) => data.borrow::<Served>().map(|served| served.clone()).ok(),
        _ => None,
    };
    let served = served.ok_or_else(|| {
        ScriptError::new(format!("{shown}: the script must end with `return tw.serve{{ ... }}`"))
    })?;
    let backend = |(name, value): (String, Value)| -> Result<(String, SharedBackend), ScriptError> {
        let backend: SharedBackend = match value {
            Value::Function(function) => {
                Arc::new(Pipeline::new(&name, lua.clone(), function, limits.clone()))
            }
            other => lua.unpack::<Handle>(other)?.0,
        };
        Ok((name, backend))
    };
    let models = served.models.into_iter().map(backend).collect::<Result<_, _>>()?;
    Ok(Script { listen: served.listen, token: served.token, models })
}
