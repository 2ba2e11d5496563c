//! File stamps: whether a file changed since it was hashed.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The identity, the size and the times of a file. Two equal stamps mean an unchanged file: every write and
/// every renaming sets `ctime`, and programs cannot set it back. The number of the device is not part of the
/// stamp, because it may change at each start of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileStamp {
    inode: u64,
    size: u64,
    /// Time of the last write: seconds and nanoseconds.
    mtime: (i64, i64),
    /// Time of the last change of the bytes or of the metadata.
    ctime: (i64, i64),
}

impl FileStamp {
    /// The stamp of the file at `path`. A caller that hashes the file takes the stamp before.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::from_metadata(&metadata))
    }

    #[cfg(unix)]
    pub(crate) fn from_metadata(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            inode: metadata.ino(),
            size: metadata.len(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Other systems report no `ctime`: the time of creation stands for the identity.
    #[cfg(not(unix))]
    pub(crate) fn from_metadata(metadata: &Metadata) -> Self {
        let time = |time: io::Result<std::time::SystemTime>| {
            let since_epoch = time.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            since_epoch.map_or((0, 0), |time| (time.as_secs() as i64, i64::from(time.subsec_nanos())))
        };
        let (mtime, ctime) = (time(metadata.modified()), time(metadata.created()));
        Self { inode: 0, size: metadata.len(), mtime, ctime }
    }
}
