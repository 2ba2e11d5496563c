//! The input of a Lua state.
//!
//! Invariant: all runs of a script get the same texts and the same backends, although files and machines change
//! meanwhile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tightwad_core::{WatchedFiles, sync};

use crate::api::arg::Listing;
use crate::factory::Factory;
use crate::made_values::MadeValues;

/// The text of a script and its inputs. The host can run it again.
pub(crate) struct Source {
    /// The script's name in errors.
    pub display_name: String,
    pub text: Vec<u8>,
    /// The folder where relative paths and modules start.
    pub folder: PathBuf,
    pub purpose: Purpose,
    /// Names and texts from the command line, for `tw.arg`.
    pub arguments: Vec<(String, String)>,
    /// Receives the files of the modules.
    pub files: Arc<WatchedFiles>,
    /// The backends that earlier runs made.
    pub made: MadeValues,
    /// The texts of the modules that earlier runs read.
    pub modules: Mutex<HashMap<PathBuf, Arc<Vec<u8>>>>,
}

impl Source {
    /// The text of the module at `path`.
    pub(crate) fn module(&self, path: &Path) -> mlua::Result<Arc<Vec<u8>>> {
        if let Some(text) = sync::lock(&self.modules).get(path) {
            return Ok(text.clone());
        }
        self.files.record(path);
        let text = std::fs::read(path)
            .map_err(|error| mlua::Error::RuntimeError(format!("cannot read {}: {error}", path.display())))?;
        let text = Arc::new(text);
        sync::lock(&self.modules).insert(path.to_owned(), text.clone());
        Ok(text)
    }
}

/// The purpose for which the host runs a script.
pub(crate) enum Purpose {
    /// The host serves the script's models.
    Serve(Arc<dyn Factory>),
    /// The host lists the script's arguments. The script stops at its first function of `tw`.
    ListArguments(Listing),
}
