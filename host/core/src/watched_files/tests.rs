use std::fs;

use super::*;

const TIMING: WatchTiming =
    WatchTiming { poll_interval: Duration::from_millis(5), max_unsettled_time: Duration::from_secs(600) };

/// A new folder below the system's folder for temporary files.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tightwad-watch-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// True if a poll finds a change.
async fn finds_change(files: &Arc<WatchedFiles>) -> bool {
    tokio::time::timeout(Duration::from_secs(20), files.changed(TIMING)).await.is_ok()
}

#[tokio::test]
async fn unchanged_file_is_not_a_change() {
    let folder = Folder::new("unchanged");
    let files = Arc::new(WatchedFiles::default());
    files.record(&folder.write("x.lua", "one"));
    assert!(tokio::time::timeout(Duration::from_millis(40), files.changed(TIMING)).await.is_err());
}

#[tokio::test]
async fn edited_replaced_and_removed_files_are_changes() {
    let folder = Folder::new("edited");
    let files = Arc::new(WatchedFiles::default());
    let path = folder.write("lib/routes.lua", "one");
    files.record(&path);
    folder.write("lib/routes.lua", "two, longer");
    assert!(finds_change(&files).await, "edited");
    files.record(&path);
    let other = folder.write("lib/routes.lua.new", "two, longer");
    fs::rename(other, &path).unwrap();
    assert!(finds_change(&files).await, "replaced by a rename");
    files.record(&path);
    fs::remove_file(&path).unwrap();
    assert!(finds_change(&files).await, "removed");
}

#[cfg(unix)]
#[tokio::test]
async fn changed_target_of_a_link_is_a_change() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("links");
    let files = Arc::new(WatchedFiles::default());
    folder.write("real/x.lua", "one");
    let link = folder.0.join("x.lua");
    symlink("real/x.lua", &link).unwrap();
    files.record(&link);
    folder.write("real/x.lua", "two, longer");
    assert!(finds_change(&files).await, "the target was edited");

    // The layout of a ConfigMap: x.lua -> ..data/x.lua, ..data -> ..1.
    folder.write("config/..1/x.lua", "same");
    folder.write("config/..2/x.lua", "same");
    symlink("..1", folder.0.join("config/..data")).unwrap();
    symlink("..data/x.lua", folder.0.join("config/x.lua")).unwrap();
    files.clear();
    files.record(&folder.0.join("config/x.lua"));
    symlink("..2", folder.0.join("config/..next")).unwrap();
    fs::rename(folder.0.join("config/..next"), folder.0.join("config/..data")).unwrap();
    assert!(finds_change(&files).await, "the folder was replaced");
}

#[cfg(unix)]
#[tokio::test]
async fn new_file_in_a_linked_folder_is_a_change() {
    let folder = Folder::new("folder");
    folder.write("real/a.wasm", "one");
    let link = folder.0.join("plugins");
    std::os::unix::fs::symlink("real", &link).unwrap();
    let files = Arc::new(WatchedFiles::in_folders(vec![link], "wasm"));
    files.record_folders();
    folder.write("real/readme.txt", "not a plugin");
    assert!(files.differing().is_empty());
    folder.write("real/b.wasm", "two");
    assert!(finds_change(&files).await);
    files.record_folders();
    assert!(files.differing().is_empty());
}

#[tokio::test]
async fn file_that_never_settles_counts_after_the_maximum_time_and_starves_no_other() {
    let folder = Folder::new("unsettled");
    let files = Arc::new(WatchedFiles::default());
    let (busy, quiet) = (folder.write("busy.lua", ""), folder.write("quiet.lua", "one"));
    files.record(&busy);
    files.record(&quiet);
    let writer = tokio::spawn(async move {
        for length in 1.. {
            fs::write(&busy, "x".repeat(length)).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    folder.write("quiet.lua", "two, longer");
    assert!(finds_change(&files).await, "the busy file starves the quiet one");
    files.record(&quiet);
    let impatient = WatchTiming { max_unsettled_time: Duration::from_millis(50), ..TIMING };
    tokio::time::timeout(Duration::from_secs(20), files.changed(impatient)).await.unwrap();
    writer.abort();
}
