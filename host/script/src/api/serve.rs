//! `tw.serve{}`.

use std::path::Path;
use std::sync::Arc;

use mlua::{Lua, Table, Value};
use tightwad_core::Credentials;
use tightwad_net::door::WebNames;
use tightwad_net::tls::CertificatePaths;

use crate::api::client_keys::client_keys;
use crate::api::paths::resolve;
use crate::handle::BackendHandle;
use crate::keys::{Fields, Schema, describe, is_name, name_rule};
use crate::table_error::TableError;

pub(crate) const SERVE: Schema =
    Schema { name: "tw.serve", keys: &["models", "listen", "token", "keys", "tls", "hosts", "origins"] };

pub(crate) const TLS: Schema = Schema { name: "'tls'", keys: &["cert", "key"] };

/// The options of `tw.serve{}`. A script returns this value to the host.
#[derive(Clone)]
pub(crate) struct ServeSpec {
    pub listen: Option<String>,
    pub credentials: Credentials,
    pub web: Arc<WebNames>,
    pub tls: Option<CertificatePaths>,
    /// Backends and functions by the names that clients use, sorted.
    pub models: Vec<(String, Value)>,
}

impl mlua::UserData for ServeSpec {}

/// Reads the options of `tw.serve{}`.
pub(crate) fn serve(lua: &Lua, table: &Table, folder: &Path) -> Result<ServeSpec, TableError> {
    let fields = Fields::new(lua, table, &SERVE)?;
    let models = served_models(&fields.required("models", "a table of models by name")?)?;
    let listen = fields.optional("listen", "a string")?;
    let keys = client_keys(lua, fields.value("keys")?, &models)?;
    let credentials = Credentials { token: fields.token("token")?, keys };
    let tls = tls(lua, &fields, folder)?;
    Ok(ServeSpec { listen, credentials, web: web_names(&fields)?, tls, models })
}

/// The files of the endpoint's certificate, relative to the script's folder.
fn tls(lua: &Lua, fields: &Fields<'_>, folder: &Path) -> Result<Option<CertificatePaths>, TableError> {
    let expected = "a table, as in { cert = \"cert.pem\", key = \"key.pem\" }";
    let Some(table) = fields.optional::<Table>("tls", expected)? else { return Ok(None) };
    let fields = Fields::new(lua, &table, &TLS)?;
    let path =
        |key| Ok::<_, TableError>(resolve(folder, &fields.required::<String>(key, "a string, a PEM file")?));
    Ok(Some(CertificatePaths { cert: path("cert")?, key: path("key")? }))
}

/// The backends and functions in `models`, sorted by name.
fn served_models(table: &Table) -> Result<Vec<(String, Value)>, TableError> {
    let mut models = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (name, value) = pair?;
        let Value::String(name) = &name else {
            return Err(TableError::Refused(
                "'models' in tw.serve has names as keys, as in { [\"big\"] = backend }".to_owned(),
            ));
        };
        let name = name.to_string_lossy();
        if !is_name(&name) {
            return Err(TableError::Refused(name_rule("a name in 'models' of tw.serve", &name)));
        }
        check_model(&name, &value)?;
        models.push((name, value));
    }
    if models.is_empty() {
        return Err(TableError::Refused("'models' in tw.serve is empty".to_owned()));
    }
    models.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(models)
}

/// A model is a function, or a backend that answers requests.
fn check_model(name: &str, value: &Value) -> Result<(), TableError> {
    let is_usable = match value {
        Value::Function(_) => true,
        Value::UserData(data) => match data.borrow::<BackendHandle>() {
            Ok(handle) if handle.0.as_generator().is_none() => {
                return Err(TableError::Refused(format!(
                    "the model '{name}' cannot answer requests: it only drafts"
                )));
            }
            handle => handle.is_ok(),
        },
        _ => false,
    };
    if is_usable {
        return Ok(());
    }
    let actual = describe(value);
    Err(TableError::Refused(format!("the model '{name}' must be a backend or a function, not {actual}")))
}

/// The host names and web origins that may use the server.
fn web_names(fields: &Fields<'_>) -> Result<Arc<WebNames>, TableError> {
    let names = |key| fields.optional::<Vec<String>>(key, "a list of strings").map(Option::unwrap_or_default);
    let web = WebNames::new(&names("hosts")?, &names("origins")?);
    web.map(Arc::new).map_err(|error| TableError::Refused(format!("in tw.serve: {error}")))
}
