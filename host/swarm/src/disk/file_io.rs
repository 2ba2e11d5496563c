//! File access at an offset, file identity, and durable directory changes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Fills `buffer` from `offset`. The file's cursor does not matter.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Writes `data` at `offset`. The file's cursor does not matter.
#[cfg(unix)]
pub(crate) fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset)
}

/// Fills `buffer` from `offset`.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[count..];
        offset += count as u64;
    }
    Ok(())
}

/// Writes `data` at `offset`.
#[cfg(windows)]
pub(crate) fn write_at(file: &File, mut data: &[u8], mut offset: u64) -> io::Result<()> {
    while !data.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_write(file, data, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        data = &data[count..];
        offset += count as u64;
    }
    Ok(())
}

/// Whether `path` leads to the open `file`. False when no file has this path.
pub(crate) fn is_same_file(path: &Path, file: &File) -> io::Result<bool> {
    let path_metadata = match fs::metadata(path) {
        Ok(path_metadata) => path_metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(same_identity(&path_metadata, &file.metadata()?))
}

#[cfg(unix)]
fn same_identity(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn same_identity(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    a.len() == b.len() && a.created().ok() == b.created().ok()
}

/// Whether a file's size or modification time changed between `before` and `after`.
pub(crate) fn was_modified(before: &fs::Metadata, after: &fs::Metadata) -> bool {
    before.len() != after.len() || before.modified().ok() != after.modified().ok()
}

/// Options to open a file for reading and writing that is not a link: another user may place a link in a
/// shared folder.
pub(crate) fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed(),
    );
    options
}

/// Renames `from` to `to`, which must not exist.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // NFS and some other file systems lack the flag. A hard link never replaces a file either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match fs::hard_link(from, to) {
                Ok(()) => return fs::remove_file(from),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
                // FAT and some FUSE file systems lack hard links too: only the check below remains.
                Err(_) => {}
            },
            result => return Ok(result?),
        }
    }
    if to.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

/// Bytes that this user can still write to the file system of `path`. `None` when the system does not say.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let file_system = rustix::fs::statvfs(parent(path)).ok()?;
        Some(file_system.f_bavail.saturating_mul(file_system.f_frsize))
    }
    #[cfg(not(unix))]
    None
}

/// The directory of `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `path` with `suffix` appended to its file name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the creation, renaming or removal of `path` survive power loss.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        // Other systems cannot open directories, and their file systems journal such changes.
        return Ok(());
    }
    File::open(parent(path))?.sync_all()
}
