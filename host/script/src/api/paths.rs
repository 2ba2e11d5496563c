//! Paths in scripts.

use std::path::{Path, PathBuf};

/// Resolves a path of a script: a relative path starts at the script's `folder`, and `~/` is the user's home.
pub(crate) fn resolve(folder: &Path, path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => folder.join(path),
    }
}
