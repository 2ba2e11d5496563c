//! Watches folders for changed files.

use std::path::Path;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Editors and copies write a file in several steps. A change counts after this time without a further change.
const DEBOUNCE_TIME: Duration = Duration::from_millis(200);

/// Changes to the files with one extension in watched folders.
pub(crate) struct Changes {
    changed: mpsc::UnboundedReceiver<()>,
    // Dropping the watcher ends the watch.
    _watcher: RecommendedWatcher,
}

impl Changes {
    /// Waits for the next change. Returns false when the watch has ended.
    pub(crate) async fn next(&mut self) -> bool {
        if self.changed.recv().await.is_none() {
            return false;
        }
        while let Ok(Some(())) = timeout(DEBOUNCE_TIME, self.changed.recv()).await {}
        true
    }
}

/// Watches the files with `extension` in `folders`. A watch of the files themselves would miss replaced and new files.
///
/// # Errors
///
/// The operating system cannot watch a folder.
pub(crate) fn watch<'a>(
    folders: impl IntoIterator<Item = &'a Path>,
    extension: &'static str,
) -> notify::Result<Changes> {
    let (sender, changed) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let matches =
            |event: &Event| event.paths.iter().any(|path| path.extension().is_some_and(|e| e == extension));
        let Ok(event) = event else { return };
        if !matches!(event.kind, EventKind::Access(_)) && matches(&event) {
            // The send fails after the watch has ended.
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
