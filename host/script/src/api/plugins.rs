//! Plugins that scripts name: drivers and policies.

use std::path::Path;

use tightwad_core::PluginSpec;

use crate::api::paths::resolve;
use crate::keys::Fields;
use crate::table_error::TableError;

/// The plugin under `key`, and the digest under `key` with `_sha256`. A path to a `.wasm` file starts at `folder`.
pub(crate) fn plugin(
    fields: &Fields<'_>,
    folder: &Path,
    key: &str,
    table_name: &str,
) -> Result<Option<PluginSpec>, TableError> {
    let digest_key = format!("{key}_sha256");
    let name: Option<String> = fields.optional(key, "a string")?;
    let sha256: Option<String> = fields.optional(&digest_key, "a string")?;
    if let Some(wrong) = sha256.as_ref().filter(|text| tightwad_core::parse_digest(text).is_none()) {
        return Err(TableError::Refused(format!(
            "'{digest_key}' in {table_name} must be 64 hexadecimal digits, not '{wrong}'"
        )));
    }
    match name {
        Some(name) if name.ends_with(".wasm") => {
            Ok(Some(PluginSpec { name: resolve(folder, &name).display().to_string(), sha256 }))
        }
        Some(name) => Ok(Some(PluginSpec { name, sha256 })),
        None if sha256.is_some() => {
            Err(TableError::Refused(format!("'{digest_key}' in {table_name} needs '{key}'")))
        }
        None => Ok(None),
    }
}
