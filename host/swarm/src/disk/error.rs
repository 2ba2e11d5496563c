//! Errors of a store.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tightwad_core::Size;

use crate::disk::digest::Digest;

/// An error of a file on this machine.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The data do not match the manifest's digest. Their sender is faulty or malicious.
    #[error("block {block} of piece {piece} does not match the manifest")]
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
    /// The byte lies in an incomplete piece, or after the end of the file.
    #[error("byte {0} is not on this machine yet")]
    Missing(u64),
    /// Some pieces are missing.
    #[error("{} is not complete: {missing} pieces are missing", path.display())]
    Incomplete {
        /// The final path of the file.
        path: PathBuf,
        /// The number of missing pieces.
        missing: usize,
    },
    /// The file exists already.
    #[error("{} exists already; move it, or pull with --replace", .0.display())]
    Exists(PathBuf),
    /// The path is a link to a file that does not exist.
    #[error("{} is a link to a missing file; remove the link, or pull with --replace", .0.display())]
    DanglingLink(PathBuf),
    /// The file system has too little room.
    #[error("{} needs {}, but its file system has only {} free: free some, or choose another directory", path.display(), Size(*needed), Size(*free))]
    NoRoom {
        /// The final path of the file.
        path: PathBuf,
        /// The bytes that the pull still writes.
        needed: u64,
        /// The free bytes.
        free: u64,
    },
    /// The file system does not support the name.
    #[error("{}: its file system does not support a name like this, or of this length: choose another name", .0.display())]
    InvalidName(PathBuf),
    /// Another pull of the same file runs.
    #[error("{} is being pulled already; wait for that pull, or stop it", .0.display())]
    Busy(PathBuf),
    /// The journal belongs to another file.
    #[error("{} belongs to another version, {journal_root}, but {wanted_root} is wanted: finish that pull, or remove the journal and the .part file beside it", journal.display())]
    OtherRoot {
        /// The journal.
        journal: PathBuf,
        /// The root in the journal.
        journal_root: Digest,
        /// The root of the wanted file.
        wanted_root: Digest,
    },
    /// A file that no pull created has the name of the part file or of the journal.
    #[error("{} exists, and no pull created it: move it, or remove it", .0.display())]
    Foreign(PathBuf),
    /// Another program renamed or removed the part file.
    #[error("{} was moved or removed during the pull: move it back, or start the pull again", .0.display())]
    Moved(PathBuf),
    /// The file does not match its manifest, or does not match it any more.
    #[error("{} does not match its manifest: make the manifest again", .0.display())]
    Changed(PathBuf),
    /// An earlier write to the disk failed. Later writes may be lost too.
    #[error("{}: an earlier write failed; see the first error, then start the pull again", .0.display())]
    Failed(PathBuf),
    /// The sidecar of the complete file cannot be written.
    #[error("the file is complete, but {0}")]
    Sidecar(#[from] crate::disk::manifest_error::ManifestError),
    /// The disk or the quota is full.
    #[error("no space is left for {}: free some, then start the pull again; it resumes", .0.display())]
    Full(PathBuf),
    /// The file system is read-only.
    #[error("{} is on a read-only file system: choose another directory", .0.display())]
    ReadOnly(PathBuf),
    /// Permission denied.
    #[error("no permission for {}: change its owner or mode, or choose another directory", .0.display())]
    Denied(PathBuf),
    /// The file system does not support files of that size.
    #[error("{} would be larger than its file system allows (FAT: 4 GiB): choose another directory", .0.display())]
    TooLarge(PathBuf),
    /// Any other error of the system.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl StoreError {
    /// The meaning of a system error for `path`.
    pub(crate) fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        #[cfg(unix)]
        if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            // A link that no pull created.
            return Self::Foreign(path);
        }
        match source.kind() {
            ErrorKind::AlreadyExists => Self::Exists(path),
            ErrorKind::InvalidFilename => Self::InvalidName(path),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full(path),
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(path),
            ErrorKind::PermissionDenied => Self::Denied(path),
            ErrorKind::FileTooLarge => Self::TooLarge(path),
            _ => Self::Io { path, source },
        }
    }

    /// A closure for `map_err`: the error of `path`.
    pub(crate) fn for_path(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::from_io(path, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are error codes of Linux.
    #[cfg(target_os = "linux")]
    #[test]
    fn system_error_names_the_remedy() {
        for (code, text) in [
            (28, "no space is left for m.part: free some"),
            (122, "no space is left for m.part: free some"),
            (30, "m.part is on a read-only file system: choose"),
            (13, "no permission for m.part: change"),
            (27, "m.part would be larger than its file system allows"),
            (36, "m.part: its file system does not support a name"),
            (40, "m.part exists, and no pull created it"),
            (5, "m.part: Input/output error"),
        ] {
            let error = StoreError::from_io(Path::new("m.part"), io::Error::from_raw_os_error(code));
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }
}
