//! Noticing that files changed.

use std::path::Path;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Editors and copies write a file in several steps: wait until they are done.
const QUIET: Duration = Duration::from_millis(200);

/// Changes of the files with one extension in some folders.
pub(crate) struct Changes {
    changed: mpsc::UnboundedReceiver<()>,
    // Watches for as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Changes {
    /// Completes after the next change, when the folders are quiet again; false: watching ended.
    pub(crate) async fn next(&mut self) -> bool {
        if self.changed.recv().await.is_none() {
            return false;
        }
        while let Ok(Some(())) = timeout(QUIET, self.changed.recv()).await {}
        true
    }
}

/// Watches the files with `extension` in `folders`: folders, because editors replace files rather than
/// write to them, and because new ones may come.
///
/// # Errors
///
/// The operating system's, where it cannot watch.
pub(crate) fn watch<'a>(
    folders: impl IntoIterator<Item = &'a Path>,
    extension: &'static str,
) -> notify::Result<Changes> {
    let (sender, changed) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let ours =
            |event: &Event| event.paths.iter().any(|path| path.extension().is_some_and(|e| e == extension));
        let Ok(event) = event else { return };
        if !matches!(event.kind, EventKind::Access(_)) && ours(&event) {
            // Nobody listens any more where this fails.
            let _ = sender.send(());
        }
    })?;
    for folder in folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(Changes { changed, _watcher: watcher })
}

/// The folder of a file.
#[must_use]
pub(crate) fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
