//! Files whose changes the host applies while it runs.
//!
//! The host polls instead of asking the operating system for events. Events miss the targets of links, replaced
//! folders and network file systems.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::sync;

/// When a change of a file counts.
#[derive(Debug, Clone, Copy)]
pub struct WatchTiming {
    /// The time between two polls. A change counts when two polls in a row find the same file, because editors and
    /// copies write a file in several steps.
    pub poll_interval: Duration,
    /// The time after which a change counts although the file still changes.
    pub max_unsettled_time: Duration,
}

impl Default for WatchTiming {
    fn default() -> Self {
        Self { poll_interval: Duration::from_millis(300), max_unsettled_time: Duration::from_secs(10) }
    }
}

/// The state of a file on disk. It differs when the file, or a link on the path to it, has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    /// The path without links.
    target: PathBuf,
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl Stamp {
    /// The state of the file at `path`. `None`: there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let target = path.canonicalize().ok()?;
        Some(Self {
            target,
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
            inode: inode(&metadata),
        })
    }
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}

/// The state of each file; `None` for a missing file.
type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// The files that a reader has read, each with its state before the read, and the folders where new files count.
#[derive(Debug, Default)]
pub struct WatchedFiles {
    read: Mutex<Stamps>,
    folders: Vec<PathBuf>,
    /// The extension of the files in `folders`.
    extension: &'static str,
}

impl WatchedFiles {
    /// Watches the files with `extension` in `folders` too. A folder can be a link.
    #[must_use]
    pub fn in_folders(folders: Vec<PathBuf>, extension: &'static str) -> Self {
        Self { read: Mutex::default(), folders, extension }
    }

    /// Forgets all files that were read. A reader that starts again calls this method first.
    pub fn clear(&self) {
        sync::lock(&self.read).clear();
    }

    /// Records the state of the file at `path`. Must be called before the file is read.
    pub fn record(&self, path: &Path) {
        sync::lock(&self.read).insert(path.to_owned(), Stamp::of(path));
    }

    /// Records the state of all files in the folders. Must be called before the files are read.
    pub fn record_folders(&self) {
        *sync::lock(&self.read) =
            self.files_in_folders().map(|path| (path.clone(), Stamp::of(&path))).collect();
    }

    /// Waits until a file differs from its recorded state, or a folder has a new file.
    pub async fn changed(self: &Arc<Self>, timing: WatchTiming) {
        let (mut previous, mut since) = (Stamps::new(), BTreeMap::new());
        loop {
            tokio::time::sleep(timing.poll_interval).await;
            let files = self.clone();
            // A file system can block, for example while a network share is lost.
            let differing = tokio::task::spawn_blocking(move || files.differing()).await.unwrap_or_default();
            let now = Instant::now();
            since.retain(|path, _| differing.contains_key(path));
            for (path, stamp) in &differing {
                let unsettled_time = now - *since.entry(path.clone()).or_insert(now);
                if previous.get(path) == Some(stamp) || unsettled_time >= timing.max_unsettled_time {
                    return;
                }
            }
            previous = differing;
        }
    }

    /// The files that differ from their recorded state.
    fn differing(&self) -> Stamps {
        let read = sync::lock(&self.read).clone();
        let paths = read.keys().cloned().chain(self.files_in_folders());
        let stamps = paths.map(|path| (path.clone(), Stamp::of(&path)));
        stamps.filter(|(path, stamp)| read.get(path) != Some(stamp)).collect()
    }

    fn files_in_folders(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let entries = self.folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
        let paths = entries.flatten().map(|entry| entry.path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == self.extension))
    }
}

#[cfg(test)]
mod tests;
