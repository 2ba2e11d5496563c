//! The user's directories, after the XDG base directory specification.

use std::path::PathBuf;

/// The directory for data that can be made again; `None` for users without a home directory.
#[must_use]
pub fn user_cache_dir() -> Option<PathBuf> {
    user_dir("XDG_CACHE_HOME", ".cache")
}

/// The directory for data that must be kept; `None` for users without a home directory.
#[must_use]
pub fn user_data_dir() -> Option<PathBuf> {
    user_dir("XDG_DATA_HOME", ".local/share")
}

/// The directory for data that survives restarts but need not be kept; `None` for users without a home directory.
#[must_use]
pub fn user_state_dir() -> Option<PathBuf> {
    user_dir("XDG_STATE_HOME", ".local/state")
}

/// `tightwad` in the base directory that `variable` names, or in `default` below the home directory.
fn user_dir(variable: &str, default: &str) -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(default));
    let base = std::env::var_os(variable).map(PathBuf::from).or_else(home)?;
    base.is_absolute().then(|| base.join("tightwad"))
}
