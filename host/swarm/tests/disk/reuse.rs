//! Delta: blocks of an older file are copied, not fetched.

use std::fs;

use tightwad_swarm::disk::FileStamp;

use super::Pull;
use super::fixture::{Model, random_bytes};

/// A file with another header, another embedding and the same layers.
fn save_older_file(pull: &Pull) -> std::path::PathBuf {
    let model = Model::layered("Tiny Test", &"old ".repeat(999))
        .tensor("token_embd.weight", random_bytes(77, 1_200_000));
    model.save(pull.directory.path(), "old.gguf")
}

#[test]
fn reuse_copies_tensors_of_an_older_file() {
    let pull = Pull::new();
    let old = save_older_file(&pull);
    for has_sidecar in [false, true] {
        if has_sidecar {
            super::hash_with_sidecar(&old);
        }
        let store = pull.store();
        let copied = store.reuse(&old).unwrap();
        assert_eq!(copied, store.have_bytes());
        // The embedding is two blocks in one piece.
        let missing: Vec<u32> = pull.pieces().filter(|piece| !store.has_piece(*piece)).collect();
        assert_eq!(missing, [0, 1]);
        drop(store);
        let store = pull.store();
        assert_eq!(store.have_bytes(), copied, "the journal has the copied blocks");
        assert_eq!(store.reuse(&old).unwrap(), 0);
        missing.into_iter().for_each(|piece| pull.fill(&store, piece));
        store.finish(true).unwrap();
        assert_eq!(fs::read(pull.path("m.gguf")).unwrap(), pull.source);
    }
}

#[test]
fn update_reuses_the_file_that_it_replaces() {
    let pull = Pull::new();
    fs::rename(save_older_file(&pull), pull.path("m.gguf")).unwrap();
    super::hash_with_sidecar(&pull.path("m.gguf"));
    let store = pull.store();
    assert!(store.reuse(&pull.path("m.gguf")).unwrap() > 0);
    pull.pieces().for_each(|piece| pull.fill(&store, piece));
    let error = store.finish(false).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    store.finish(true).unwrap();
    assert_eq!(fs::read(pull.path("m.gguf")).unwrap(), pull.source);
}

#[test]
fn reuse_ignores_a_wrong_sidecar() {
    let pull = Pull::new();
    let old = pull.path("old.gguf");
    fs::write(&old, random_bytes(5, pull.source.len())).unwrap();
    pull.manifest.write_sidecar(&old, FileStamp::of(&old).unwrap()).unwrap();
    let store = pull.store();
    assert_eq!(store.reuse(&old).unwrap(), 0);
    assert_eq!(store.have_bytes(), 0);
    // An equal file is copied completely.
    assert_eq!(store.reuse(&pull.path("source.gguf")).unwrap(), pull.manifest.size());
    assert!(store.reuse(&pull.path("none.gguf")).is_ok(), "nothing is missing, so the file is not opened");
    drop(store);
    fs::remove_file(pull.path("m.gguf.part")).unwrap();
    assert!(pull.store().reuse(&pull.path("none.gguf")).is_err());
    fs::write(&old, b"GGUF\x03\0\0\0broken").unwrap();
    assert_eq!(pull.store().reuse(&old).unwrap(), 0);
}
