//! What an older file has is not fetched.

use std::fs;

use super::Pull;
use super::fixture::{Model, noise};

/// Another header, another embedding, the layers as before.
fn older(pull: &Pull) -> std::path::PathBuf {
    let model =
        Model::layered("Tiny Test", &"old ".repeat(999)).tensor("token_embd.weight", noise(77, 1_200_000));
    model.save(pull.directory.path(), "old.gguf")
}

#[test]
fn tensors_that_an_older_file_has_are_copied() {
    let pull = Pull::new();
    let old = older(&pull);
    for beside in [false, true] {
        if beside {
            super::manifest(&old).keep_beside(&old).unwrap();
        }
        let store = pull.store();
        let copied = store.reuse(&old).unwrap();
        assert_eq!(copied, store.bytes_had());
        // The embedding is two blocks in one piece.
        let lacking: Vec<u32> = pull.pieces().filter(|piece| !store.has(*piece)).collect();
        assert_eq!(lacking, [0, 1]);
        drop(store);
        let store = pull.store();
        assert_eq!(store.bytes_had(), copied, "it is in the journal");
        assert_eq!(store.reuse(&old).unwrap(), 0);
        lacking.into_iter().for_each(|piece| pull.fill(&store, piece));
        store.finish(true).unwrap();
        assert_eq!(fs::read(pull.path("m.gguf")).unwrap(), pull.source);
    }
}

#[test]
fn an_update_takes_the_file_that_it_replaces() {
    let pull = Pull::new();
    fs::rename(older(&pull), pull.path("m.gguf")).unwrap();
    super::manifest(&pull.path("m.gguf")).keep_beside(&pull.path("m.gguf")).unwrap();
    let store = pull.store();
    assert!(store.reuse(&pull.path("m.gguf")).unwrap() > 0);
    pull.pieces().for_each(|piece| pull.fill(&store, piece));
    let error = store.finish(false).unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
    store.finish(true).unwrap();
    assert_eq!(fs::read(pull.path("m.gguf")).unwrap(), pull.source);
}

#[test]
fn a_lying_manifest_beside_it_does_no_harm() {
    let pull = Pull::new();
    let old = pull.path("old.gguf");
    fs::write(&old, noise(5, pull.source.len())).unwrap();
    pull.manifest.keep_beside(&old).unwrap();
    let store = pull.store();
    assert_eq!(store.reuse(&old).unwrap(), 0);
    assert_eq!(store.bytes_had(), 0);
    // The same file is copied as a whole.
    assert_eq!(store.reuse(&pull.path("source.gguf")).unwrap(), pull.manifest.size());
    assert!(store.reuse(&pull.path("none.gguf")).is_ok(), "nothing is missing, nobody looks");
    drop(store);
    fs::remove_file(pull.path("m.gguf.part")).unwrap();
    assert!(pull.store().reuse(&pull.path("none.gguf")).is_err());
    fs::write(&old, b"GGUF\x03\0\0\0broken").unwrap();
    assert_eq!(pull.store().reuse(&old).unwrap(), 0);
}
