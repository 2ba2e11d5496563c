//! The input of a Lua state.

use std::path::PathBuf;
use std::sync::Arc;

use crate::api::arg::Listing;
use crate::factory::Factory;

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
}

/// The purpose for which the host runs a script.
pub(crate) enum Purpose {
    /// The host serves the script's models.
    Serve(Arc<dyn Factory>),
    /// The host lists the script's arguments. The script stops at its first function of `tw`.
    ListArguments(Listing),
}
