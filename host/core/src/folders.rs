//! The user's folders, after the XDG base directory specification.

use std::path::PathBuf;

/// The user's folder for what can be made again; `None` for users without a home.
#[must_use]
pub fn user_cache() -> Option<PathBuf> {
    user_folder("XDG_CACHE_HOME", ".cache")
}

/// The user's folder for what is kept; `None` for users without a home.
#[must_use]
pub fn user_data() -> Option<PathBuf> {
    user_folder("XDG_DATA_HOME", ".local/share")
}

/// Ours in a base directory of the XDG specification.
fn user_folder(variable: &str, usual: &str) -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(usual));
    let base = std::env::var_os(variable).map(PathBuf::from).or_else(home)?;
    base.is_absolute().then(|| base.join("tightwad"))
}
