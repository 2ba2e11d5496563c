//! Interference by other programs and by the disk.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use tightwad_swarm::disk::{Store, StoreError, check_absent};

use super::Pull;
use super::fixture::Model;

#[test]
fn resume_refuses_a_concurrent_pull() {
    let pull = Pull::new();
    let store = pull.store();
    let resume = || Store::resume(&pull.path("m.gguf"), Arc::clone(&pull.manifest), &|_| ());
    let error = resume().unwrap_err();
    assert!(matches!(error, StoreError::Busy(_)), "{error}");
    drop(store);
    resume().unwrap();
}

#[test]
fn resume_keeps_a_pull_of_another_version() {
    let pull = Pull::new();
    let store = pull.store();
    pull.fill(&store, 0);
    store.sync().unwrap();
    drop(store);
    let path = Model::layered("Other", "t").save(pull.directory.path(), "other.gguf");
    let other = super::manifest(&path);
    let error = Store::resume(&pull.path("m.gguf"), Arc::clone(&other), &|_| ()).unwrap_err();
    assert!(error.to_string().contains("finish that pull, or remove the journal"), "{error}");
    assert_eq!(pull.store().have_pieces(), [0]);
    // Without the part file there is nothing to keep.
    fs::remove_file(pull.path("m.gguf.part")).unwrap();
    assert_eq!(Store::resume(&pull.path("m.gguf"), other, &|_| ()).unwrap().have_bytes(), 0);
}

#[test]
fn resume_keeps_a_part_file_of_another_program() {
    let pull = Pull::new();
    let part = pull.path("m.gguf.part");
    for journal in [None, Some(&b""[..]), Some(&b"tightwad jour"[..])] {
        fs::write(&part, b"a browser's download").unwrap();
        if let Some(journal) = journal {
            fs::write(pull.path("m.gguf.journal"), journal).unwrap();
        }
        let error = Store::resume(&pull.path("m.gguf"), Arc::clone(&pull.manifest), &|_| ()).unwrap_err();
        assert!(error.to_string().contains("no pull created it"), "{error}");
        assert_eq!(fs::read(&part).unwrap(), b"a browser's download");
        assert!(!pull.path("m.gguf.journal").exists());
    }
}

#[test]
fn moved_part_file_can_be_moved_back() {
    let pull = Pull::new();
    let store = pull.store();
    pull.pieces().for_each(|piece| pull.fill(&store, piece));
    fs::rename(pull.path("m.gguf.part"), pull.path("elsewhere")).unwrap();
    for _ in 0..2 {
        let error = store.finish(false).unwrap_err();
        assert!(error.to_string().contains("was moved or removed"), "{error}");
        // Another file of that name does not count as the part file.
        fs::write(pull.path("m.gguf.part"), &pull.source).unwrap();
    }
    assert!(matches!(store.sync(), Err(StoreError::Moved(_))));
    fs::rename(pull.path("elsewhere"), pull.path("m.gguf.part")).unwrap();
    store.finish(false).unwrap();
    assert_eq!(fs::read(pull.path("m.gguf")).unwrap(), pull.source);
}

#[test]
fn finish_refuses_an_incomplete_store() {
    let pull = Pull::new();
    let store = pull.store();
    pull.fill(&store, 0);
    let error = store.finish(true).unwrap_err();
    let missing = pull.pieces().len() - 1;
    assert!(error.to_string().ends_with(&format!("{missing} pieces are missing")), "{error}");
}

#[test]
fn open_complete_refuses_other_files() {
    let pull = Pull::new();
    let path = pull.path("source.gguf");
    let open = || Store::open_complete(&path, Arc::clone(&pull.manifest));
    open().unwrap();
    let damaged = |at: usize| {
        let mut bytes = pull.source.clone();
        bytes[at] ^= 1;
        bytes
    };
    for bytes in [damaged(100), damaged(pull.source.len() - 40), pull.source[1..].to_vec()] {
        fs::write(&path, bytes).unwrap();
        let error = open().unwrap_err();
        assert!(matches!(error, StoreError::Changed(_)), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert!(open().is_err());
}

#[test]
fn read_refuses_a_changed_file() {
    let pull = Pull::new();
    let path = pull.path("source.gguf");
    let store = Store::open_complete(&path, Arc::clone(&pull.manifest)).unwrap();
    store.read(0, &mut [0; 10]).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
    let error = store.read(0, &mut [0; 10]).unwrap_err();
    assert!(error.to_string().contains("make the manifest again"), "{error}");
}

#[cfg(unix)]
#[test]
fn resume_reports_a_read_only_directory() {
    use std::os::unix::fs::PermissionsExt;
    let pull = Pull::new();
    let directory = pull.path("closed");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write to every directory.
    if fs::write(directory.join("probe"), b"").is_err() {
        let error =
            Store::resume(&directory.join("m.gguf"), Arc::clone(&pull.manifest), &|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Denied(_)), "{error}");
    }
    let error = Store::resume(&pull.path("none/m.gguf"), Arc::clone(&pull.manifest), &|_| ()).unwrap_err();
    assert!(error.to_string().contains("none/m.gguf"), "{error}");
}

#[test]
fn long_name_is_one_sentence() {
    let pull = Pull::new();
    let path = pull.path(&"x".repeat(300));
    let error = Store::resume(&path, Arc::clone(&pull.manifest), &|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::InvalidName(_)), "{error}");
    assert!(error.to_string().contains("xxx.journal: its file system does not support"), "{error}");
}

#[test]
fn check_absent_sees_files_and_links() {
    let pull = Pull::new();
    check_absent(&pull.path("m.gguf")).unwrap();
    check_absent(&pull.path("none/m.gguf")).unwrap();
    let error = check_absent(&pull.path("source.gguf")).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/nowhere/x.gguf", pull.path("m.gguf")).unwrap();
        let error = check_absent(&pull.path("m.gguf")).unwrap_err();
        assert!(error.to_string().contains("m.gguf is a link to a missing file"), "{error}");
    }
}

/// In a shared folder, another user can place links under the names of the working files.
#[cfg(unix)]
#[test]
fn resume_follows_no_links() {
    for name in ["m.gguf.part", "m.gguf.journal"] {
        let pull = Pull::new();
        let victim = pull.path("victim");
        fs::write(&victim, b"precious").unwrap();
        std::os::unix::fs::symlink(&victim, pull.path(name)).unwrap();
        let error = Store::resume(&pull.path("m.gguf"), Arc::clone(&pull.manifest), &|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Foreign(_)), "{name}: {error}");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }
    // The journal is right, and the part file became a link.
    let pull = Pull::new();
    let store = pull.store();
    pull.fill(&store, 0);
    store.sync().unwrap();
    drop(store);
    let (part, victim) = (pull.path("m.gguf.part"), pull.path("victim"));
    fs::rename(&part, &victim).unwrap();
    let before = fs::read(&victim).unwrap();
    std::os::unix::fs::symlink(&victim, &part).unwrap();
    let store = pull.store();
    assert_eq!(store.have_bytes(), 0, "the link is replaced");
    pull.fill(&store, 1);
    assert_eq!(fs::read(&victim).unwrap(), before);
}

/// Another program creates the file after the last check.
#[test]
fn finish_never_replaces_a_new_file() {
    let pull = Pull::new();
    let store = pull.store();
    pull.pieces().for_each(|piece| pull.fill(&store, piece));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if fs::File::create_new(pull.path("m.gguf")).is_ok() {
                    break;
                }
            }
        });
        let finished = store.finish(false);
        stop.store(true, Ordering::Relaxed);
        let is_ours = fs::metadata(pull.path("m.gguf")).unwrap().len() == pull.manifest.size();
        assert_eq!(finished.is_ok(), is_ours, "{finished:?}");
    });
}

#[test]
fn too_little_room_is_one_sentence() {
    let pull = Pull::new();
    let store = pull.store();
    store.check_free_space(1).unwrap();
    let error = store.check_free_space(1 << 62).unwrap_err().to_string();
    assert!(error.contains("m.gguf needs 4194304.0 TiB, but its file system has only"), "{error}");
}
