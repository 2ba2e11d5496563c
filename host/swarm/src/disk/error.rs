//! What can go wrong with a file on this machine.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::disk::digest::Digest;

/// What can go wrong with a file on this machine.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The data are not what the manifest says. Whoever sent them lies, or is broken.
    #[error("block {block} of piece {piece} is not what the manifest says")]
    Corrupt {
        /// The piece.
        piece: u32,
        /// The block within it.
        block: u32,
    },
    /// The manifest has no such block.
    #[error("there is no block {block} of piece {piece}")]
    NoBlock {
        /// The piece.
        piece: u32,
        /// The block within it.
        block: u32,
    },
    /// Bytes of a piece that is not had, or behind the end.
    #[error("byte {0} is not on this machine yet")]
    Missing(u64),
    /// Not everything is had.
    #[error("{} is not complete: {missing} pieces are missing", path.display())]
    Incomplete {
        /// The file to be.
        path: PathBuf,
        /// Pieces that are missing.
        missing: usize,
    },
    /// The file is there already.
    #[error("{} is there already; move it, or ask for it to be replaced", .0.display())]
    Exists(PathBuf),
    /// Somebody else pulls the same file.
    #[error("{} is being pulled already; wait for that pull, or stop it", .0.display())]
    Busy(PathBuf),
    /// The journal is of another file.
    #[error("{} belongs to another version, {found}, but {wanted} is wanted: finish that pull, or remove the journal and the .part file beside it", journal.display())]
    OtherRoot {
        /// The journal.
        journal: PathBuf,
        /// Root of the file that it is of.
        found: Digest,
        /// Root of the file that is wanted.
        wanted: Digest,
    },
    /// A file is in the way, and we have not made it.
    #[error("{} is in the way, and no pull has made it: move it, or remove it", .0.display())]
    Foreign(PathBuf),
    /// Somebody renamed or removed the part file.
    #[error("{} was moved or removed while it was pulled: move it back, or start the pull again", .0.display())]
    Moved(PathBuf),
    /// The file is not that of the manifest, or no longer.
    #[error("{} is not, or no longer, the file of its manifest: make the manifest again", .0.display())]
    Changed(PathBuf),
    /// An earlier write to the disk failed; what was written since is not to be trusted.
    #[error("{}: the disk failed before; see the first error, then start the pull again", .0.display())]
    Failed(PathBuf),
    /// The manifest could not be kept beside the finished file.
    #[error("the file is complete, but {0}")]
    Keep(#[from] crate::disk::manifest_error::ManifestError),
    /// No space is left.
    #[error("no space is left for {}: free some, then start the pull again, it goes on where it was", .0.display())]
    Full(PathBuf),
    /// The file system cannot be written to.
    #[error("{} is on a read-only file system: choose another directory", .0.display())]
    ReadOnly(PathBuf),
    /// Permission denied.
    #[error("no permission for {}: change its owner or mode, or choose another directory", .0.display())]
    Denied(PathBuf),
    /// The file system has no files of that size.
    #[error("{} would be larger than its file system allows (FAT: 4 GiB): choose another directory", .0.display())]
    TooLarge(PathBuf),
    /// Anything else.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// What it means when the system says this of `path`.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full(path),
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(path),
            ErrorKind::PermissionDenied => Self::Denied(path),
            ErrorKind::FileTooLarge => Self::TooLarge(path),
            _ => Self::Io { path, source },
        }
    }

    /// For `map_err`.
    pub(crate) fn of(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::io(path, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes of Linux.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_system_says_becomes_what_to_do() {
        for (code, text) in [
            (28, "no space is left for m.part: free some"),
            (122, "no space is left for m.part: free some"),
            (30, "m.part is on a read-only file system: choose"),
            (13, "no permission for m.part: change"),
            (27, "m.part would be larger than its file system allows"),
            (5, "m.part: Input/output error"),
        ] {
            let error = StoreError::io(Path::new("m.part"), io::Error::from_raw_os_error(code));
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }
}
