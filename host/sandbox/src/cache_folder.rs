//! The folder of compiled components.

use std::path::Path;

/// Creates `folder` if it is missing, and permits only its owner to use it.
///
/// # Errors
///
/// The reason why other users could write to the folder.
#[cfg(unix)]
pub(crate) fn make_private(folder: &Path) -> Result<(), String> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

    let owner_only = 0o700;
    let created = std::fs::DirBuilder::new().recursive(true).mode(owner_only).create(folder);
    created.map_err(|error| format!("it cannot be created: {error}"))?;
    let metadata = std::fs::metadata(folder).map_err(|error| error.to_string())?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err("it belongs to another user".to_owned());
    }
    if metadata.permissions().mode() & 0o777 != owner_only {
        let permissions = std::fs::Permissions::from_mode(owner_only);
        std::fs::set_permissions(folder, permissions)
            .map_err(|error| format!("other users can use it: {error}"))?;
    }
    Ok(())
}

/// Other systems keep the user's folders private.
#[cfg(not(unix))]
pub(crate) fn make_private(_: &Path) -> Result<(), String> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn folder_is_made_private_or_refused() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/components");
        let mode = || fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
        make_private(&folder).unwrap();
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        make_private(&folder).unwrap();
        assert_eq!(mode(), 0o700);
        // Only root can give a folder away.
        if chown(&folder, Some(12345), None).is_ok() {
            assert_eq!(make_private(&folder), Err("it belongs to another user".to_owned()));
        }
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(make_private(&file).is_err());
    }
}
