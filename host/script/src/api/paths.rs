//! Paths of scripts.

use std::path::{Path, PathBuf};

/// Relative paths start at the script, `~` is the user's home.
pub(crate) fn resolve(folder: &Path, path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => folder.join(path),
    }
}
