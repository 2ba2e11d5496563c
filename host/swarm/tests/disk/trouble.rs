//! Interference by other programs and by the disk.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tightwad_swarm::disk::{Store, StoreError};

use super::Pull;
use super::fixture::Model;

#[test]
fn resume_refuses_a_concurrent_pull() {
    let pull = Pull::new();
    let store = pull.store();
    let resume = || Store::resume(&pull.path("m.gguf"), Arc::clone(&pull.manifest));
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
    let error = Store::resume(&pull.path("m.gguf"), Arc::clone(&other)).unwrap_err();
    assert!(error.to_string().contains("finish that pull, or remove the journal"), "{error}");
    assert_eq!(pull.store().have_pieces(), [0]);
    // Without the part file there is nothing to keep.
    fs::remove_file(pull.path("m.gguf.part")).unwrap();
    assert_eq!(Store::resume(&pull.path("m.gguf"), other).unwrap().have_bytes(), 0);
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
        let error = Store::resume(&pull.path("m.gguf"), Arc::clone(&pull.manifest)).unwrap_err();
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
        let error = Store::resume(&directory.join("m.gguf"), Arc::clone(&pull.manifest)).unwrap_err();
        assert!(matches!(error, StoreError::Denied(_)), "{error}");
    }
    let error = Store::resume(&pull.path("none/m.gguf"), Arc::clone(&pull.manifest)).unwrap_err();
    assert!(error.to_string().contains("none/m.gguf"), "{error}");
}
