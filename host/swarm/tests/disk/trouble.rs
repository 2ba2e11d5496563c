//! What people and disks do meanwhile.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tightwad_swarm::disk::{Store, StoreError};

use super::Pull;
use super::fixture::Model;

#[test]
fn two_pulls_of_one_file_are_refused() {
    let pull = Pull::new();
    let store = pull.store();
    let resume = || Store::resume(&pull.path("m.gguf"), Arc::clone(&pull.manifest));
    let error = resume().unwrap_err();
    assert!(matches!(error, StoreError::Busy(_)), "{error}");
    drop(store);
    resume().unwrap();
}

#[test]
fn a_pull_of_another_version_is_not_spoilt() {
    let pull = Pull::new();
    let store = pull.store();
    pull.fill(&store, 0);
    store.sync().unwrap();
    drop(store);
    let path = Model::layered("Other", "t").save(pull.directory.path(), "other.gguf");
    let other = super::manifest(&path);
    let error = Store::resume(&pull.path("m.gguf"), Arc::clone(&other)).unwrap_err();
    assert!(error.to_string().contains("finish that pull, or remove the journal"), "{error}");
    assert_eq!(pull.store().had(), [0]);
    // Without the part file there is nothing to spoil.
    fs::remove_file(pull.path("m.gguf.part")).unwrap();
    assert_eq!(Store::resume(&pull.path("m.gguf"), other).unwrap().bytes_had(), 0);
}

#[test]
fn a_file_that_no_pull_made_is_left_alone() {
    let pull = Pull::new();
    let part = pull.path("m.gguf.part");
    for journal in [None, Some(&b""[..]), Some(&b"tightwad jour"[..])] {
        fs::write(&part, b"a browser's download").unwrap();
        if let Some(journal) = journal {
            fs::write(pull.path("m.gguf.journal"), journal).unwrap();
        }
        let error = Store::resume(&pull.path("m.gguf"), Arc::clone(&pull.manifest)).unwrap_err();
        assert!(error.to_string().contains("no pull has made it"), "{error}");
        assert_eq!(fs::read(&part).unwrap(), b"a browser's download");
        assert!(!pull.path("m.gguf.journal").exists());
    }
}

#[test]
fn a_part_file_that_was_moved_can_be_moved_back() {
    let pull = Pull::new();
    let store = pull.store();
    pull.pieces().for_each(|piece| pull.fill(&store, piece));
    fs::rename(pull.path("m.gguf.part"), pull.path("elsewhere")).unwrap();
    for _ in 0..2 {
        let error = store.finish(false).unwrap_err();
        assert!(error.to_string().contains("was moved or removed"), "{error}");
        // Nor is another file of that name taken for it.
        fs::write(pull.path("m.gguf.part"), &pull.source).unwrap();
    }
    assert!(matches!(store.sync(), Err(StoreError::Moved(_))));
    fs::rename(pull.path("elsewhere"), pull.path("m.gguf.part")).unwrap();
    store.finish(false).unwrap();
    assert_eq!(fs::read(pull.path("m.gguf")).unwrap(), pull.source);
}

#[test]
fn what_is_not_complete_is_not_finished() {
    let pull = Pull::new();
    let store = pull.store();
    pull.fill(&store, 0);
    let error = store.finish(true).unwrap_err();
    let missing = pull.pieces().len() - 1;
    assert!(error.to_string().ends_with(&format!("{missing} pieces are missing")), "{error}");
}

#[test]
fn only_the_manifests_file_is_seeded() {
    let pull = Pull::new();
    let path = pull.path("source.gguf");
    let whole = || Store::whole(&path, Arc::clone(&pull.manifest));
    whole().unwrap();
    let spoilt = |at: usize| {
        let mut bytes = pull.source.clone();
        bytes[at] ^= 1;
        bytes
    };
    for bytes in [spoilt(100), spoilt(pull.source.len() - 40), pull.source[1..].to_vec()] {
        fs::write(&path, bytes).unwrap();
        let error = whole().unwrap_err();
        assert!(matches!(error, StoreError::Changed(_)), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert!(whole().is_err());
}

#[test]
fn a_file_that_changes_is_seeded_no_longer() {
    let pull = Pull::new();
    let path = pull.path("source.gguf");
    let store = Store::whole(&path, Arc::clone(&pull.manifest)).unwrap();
    store.read(0, &mut [0; 10]).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
    let error = store.read(0, &mut [0; 10]).unwrap_err();
    assert!(error.to_string().contains("make the manifest again"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_written_to_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let pull = Pull::new();
    let directory = pull.path("closed");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).unwrap();
    // Who may do everything sees no difference.
    if fs::write(directory.join("probe"), b"").is_err() {
        let error = Store::resume(&directory.join("m.gguf"), Arc::clone(&pull.manifest)).unwrap_err();
        assert!(matches!(error, StoreError::Denied(_)), "{error}");
    }
    let error = Store::resume(&pull.path("none/m.gguf"), Arc::clone(&pull.manifest)).unwrap_err();
    assert!(error.to_string().contains("none/m.gguf"), "{error}");
}
