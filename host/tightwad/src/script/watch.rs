//! Noticing that a script changed.

use std::path::Path;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Editors write a file in several steps: wait until they are done.
const QUIET: Duration = Duration::from_millis(200);

/// Changes of Lua files in a folder.
pub struct Changes {
    changed: mpsc::UnboundedReceiver<()>,
    // Watches for as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Changes {
    /// Completes after the next change, when the folder is quiet again; false: watching ended.
    pub async fn next(&mut self) -> bool {
        if self.changed.recv().await.is_none() {
            return false;
        }
        while let Ok(Some(())) = timeout(QUIET, self.changed.recv()).await {}
        true
    }
}

/// Watches the folder of `script`, because editors replace files rather than write to them, and
/// because a script may `require` its neighbours.
///
/// # Errors
///
/// The operating system's, where it cannot watch.
pub fn watch(script: &Path) -> notify::Result<Changes> {
    let (sender, changed) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let lua = |event: &Event| event.paths.iter().any(|path| path.extension().is_some_and(|e| e == "lua"));
        let Ok(event) = event else { return };
        if !matches!(event.kind, EventKind::Access(_)) && lua(&event) {
            // Nobody listens any more where this fails.
            let _ = sender.send(());
        }
    })?;
    let folder = script.parent().filter(|folder| !folder.as_os_str().is_empty());
    watcher.watch(folder.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
    Ok(Changes { changed, _watcher: watcher })
}
