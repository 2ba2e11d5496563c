//! Stores: their blocks, their durability, and the end of a pull.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tightwad_swarm::disk::{Manifest, Store, StoreError};

use super::{Pull, fixture};

#[test]
fn store_fills_finishes_and_seeds() {
    let pull = Pull::new();
    let store = pull.store();
    assert_eq!((store.have_pieces().len(), store.have_bytes(), store.version()), (0, 0, 0));
    for piece in pull.pieces().rev() {
        let version = store.version();
        pull.fill(&store, piece);
        assert!(store.version() > version);
        let piece_info = &pull.manifest.pieces()[piece as usize];
        let mut bytes = vec![0; usize::try_from(piece_info.length).unwrap()];
        store.read(piece_info.offset, &mut bytes).unwrap();
        let at = usize::try_from(piece_info.offset).unwrap();
        assert_eq!(bytes, pull.source[at..at + bytes.len()]);
    }
    assert_eq!(store.have_pieces(), pull.pieces().collect::<Vec<_>>());
    assert!(!pull.path("m.gguf").exists());
    store.finish(false).unwrap();
    assert_eq!(fs::read(pull.path("m.gguf")).unwrap(), pull.source);
    assert!(!pull.path("m.gguf.part").exists() && !pull.path("m.gguf.journal").exists());
    assert_eq!(Manifest::read_sidecar(&pull.path("m.gguf")).unwrap(), *pull.manifest);

    // The finished store stays readable, and the next process can seed the file.
    store.read(0, &mut [0; 100]).unwrap();
    store.finish(false).unwrap();
    let complete = Store::open_complete(&pull.path("m.gguf"), Arc::clone(&pull.manifest)).unwrap();
    assert_eq!(complete.have_bytes(), pull.manifest.size());
    let mut bytes = vec![0; pull.source.len()];
    complete.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, pull.source);
    assert!(complete.read(1, &mut bytes).is_err());
}

#[test]
fn read_returns_complete_pieces_only() {
    let pull = Pull::new();
    let store = pull.store();
    pull.fill(&store, 0);
    pull.fill(&store, 2);
    let pieces = pull.manifest.pieces();
    let at = |piece: usize| pieces[piece].offset;
    assert!(store.read(at(1) - 10, &mut [0; 10]).is_ok());
    for (offset, length, missing) in [
        (at(1) - 10, 11, at(1)),
        (at(2) - 1, 5, at(2) - 1),
        (at(2), usize::try_from(pieces[2].length).unwrap() + 1, at(3)),
        (pull.manifest.size(), 1, pull.manifest.size()),
        (u64::MAX, 1, u64::MAX),
    ] {
        let error = store.read(offset, &mut vec![0; length]).unwrap_err();
        assert!(matches!(error, StoreError::Missing(byte) if byte == missing), "{offset}: {error}");
    }
}

#[test]
fn write_refuses_corrupt_blocks_and_keeps_nothing() {
    let pull = Pull::new();
    let store = pull.store();
    let right_block = pull.block(1, 0).to_vec();
    let mut wrong_block = right_block.clone();
    wrong_block[1000] ^= 1;
    for data in [&wrong_block[..], &right_block[1..], &[], &vec![0; 2 << 20]] {
        let error = store.write(1, 0, data).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { piece: 1, block: 0 }), "{error}");
    }
    for (piece, block) in [(1, 99), (99, 0), (u32::MAX, u32::MAX)] {
        let error = store.write(piece, block, &right_block).unwrap_err();
        assert!(matches!(error, StoreError::NoBlock { .. }), "{error}");
    }
    assert_eq!((store.have_bytes(), store.has_piece(99), store.missing_blocks(99).len()), (0, false, 0));
    assert!(fs::read(pull.path("m.gguf.part")).unwrap().iter().all(|byte| *byte == 0));
    assert!(!store.write(1, 0, &right_block).unwrap());
    assert_eq!(store.missing_blocks(1), [1]);
    assert!(store.write(1, 1, pull.block(1, 1)).unwrap());
    // A complete block is checked as well.
    assert!(matches!(store.write(1, 0, &wrong_block), Err(StoreError::Corrupt { .. })));
    assert!(store.write(1, 0, &right_block).unwrap());
    assert_eq!(store.have_bytes(), pull.manifest.pieces()[1].length);
}

#[test]
fn synced_blocks_survive_a_kill() {
    let pull = Pull::new();
    let store = pull.store();
    store.write(1, 1, pull.block(1, 1)).unwrap();
    pull.fill(&store, 3);
    store.sync().unwrap();
    // The piece stays incomplete, so that the store does not sync it.
    store.write(4, 0, pull.block(4, 0)).unwrap();
    store.write(4, 1, pull.block(4, 1)).unwrap();
    // The drop stands for a kill: the store has no cleanup.
    drop(store);
    let store = pull.store();
    assert_eq!(store.have_pieces(), [3]);
    assert_eq!(store.missing_blocks(1), [0]);
    assert_eq!(store.missing_blocks(4).len(), pull.manifest.pieces()[4].blocks.len());
    assert!(store.read(pull.manifest.pieces()[4].offset, &mut [0]).is_err());
    for piece in pull.pieces() {
        pull.fill(&store, piece);
    }
    store.finish(false).unwrap();
    assert_eq!(fs::read(pull.path("m.gguf")).unwrap(), pull.source);
}

#[test]
fn torn_journal_costs_one_block() {
    let pull = Pull::new();
    let store = pull.store();
    pull.fill(&store, 0);
    store.sync().unwrap();
    pull.fill(&store, 2);
    store.sync().unwrap();
    let blocks = pull.manifest.pieces()[2].blocks.len();
    drop(store);
    let journal = pull.path("m.gguf.journal");
    let bytes = fs::read(&journal).unwrap();
    for torn in 1..=8 {
        fs::write(&journal, &bytes[..bytes.len() - torn]).unwrap();
        let store = pull.store();
        assert_eq!(
            (store.have_pieces(), store.missing_blocks(2).len()),
            (vec![0], 1),
            "{torn} of {blocks} blocks"
        );
    }
}

/// A disk fault, or a program that wrote to the part file between two pulls.
#[test]
fn resume_hashes_the_recorded_blocks_again() {
    let pull = Pull::new();
    let store = pull.store();
    [0, 2, 3].into_iter().for_each(|piece| pull.fill(&store, piece));
    store.sync().unwrap();
    drop(store);
    let part = pull.path("m.gguf.part");
    let mut bytes = fs::read(&part).unwrap();
    bytes[usize::try_from(pull.manifest.pieces()[2].offset).unwrap() + 7] ^= 1;
    fs::write(&part, &bytes).unwrap();
    let hashed = AtomicU64::new(0);
    let progress = |bytes| {
        hashed.fetch_add(bytes, Ordering::Relaxed);
    };
    let resume = || Store::resume(&pull.path("m.gguf"), Arc::clone(&pull.manifest), &progress).unwrap();
    let store = resume();
    assert_eq!((store.have_pieces(), store.missing_blocks(2)), (vec![0, 3], vec![0]));
    let recorded: u64 = [0, 2, 3].iter().map(|piece: &usize| pull.manifest.pieces()[*piece].length).sum();
    assert_eq!(hashed.load(Ordering::Relaxed), recorded);
    pull.pieces().for_each(|piece| pull.fill(&store, piece));
    store.sync().unwrap();
    drop(store);
    // The journal has each block once more, and no record of the damaged one before it.
    let store = resume();
    assert_eq!(store.have_bytes(), pull.manifest.size());
    store.finish(false).unwrap();
    assert_eq!(fs::read(pull.path("m.gguf")).unwrap(), pull.source);
}

#[test]
fn resume_ignores_a_journal_without_its_part_file() {
    let pull = Pull::new();
    let part = pull.path("m.gguf.part");
    for damage in [
        Box::new(|| fs::remove_file(&part).unwrap()) as Box<dyn Fn()>,
        Box::new(|| fs::write(&part, b"short").unwrap()),
    ] {
        let store = pull.store();
        pull.fill(&store, 0);
        store.sync().unwrap();
        drop(store);
        damage();
        assert_eq!(pull.store().have_bytes(), 0);
        assert_eq!(fs::metadata(&part).unwrap().len(), pull.manifest.size());
    }
    // The journal stays empty when the part file has its size again.
    assert_eq!(pull.store().have_bytes(), 0);
}

#[test]
fn resume_completes_a_finish_that_power_loss_interrupted() {
    let pull = Pull::new();
    let store = pull.store();
    pull.pieces().for_each(|piece| pull.fill(&store, piece));
    store.sync().unwrap();
    let journal = fs::read(pull.path("m.gguf.journal")).unwrap();
    store.finish(false).unwrap();
    drop(store);
    let manifest = pull.path("m.gguf.manifest");
    for older in [false, true] {
        fs::write(pull.path("m.gguf.journal"), &journal).unwrap();
        fs::remove_file(&manifest).unwrap();
        if older {
            fs::write(pull.path("m.gguf"), vec![1; pull.source.len()]).unwrap();
        }
        let store = pull.store();
        assert_eq!(store.have_bytes(), if older { 0 } else { pull.manifest.size() });
        assert_eq!((manifest.exists(), pull.path("m.gguf.journal").exists()), (!older, older));
    }
}

#[test]
fn threads_write_one_store_concurrently() {
    let pull = Pull::new();
    let store = pull.store();
    thread::scope(|scope| {
        for start in 0..4 {
            let (pull, store) = (&pull, &store);
            scope.spawn(move || {
                let count = pull.pieces().end;
                for piece in (0..count).map(|piece| (piece + start * count / 4) % count) {
                    pull.fill(store, piece);
                    store.sync().unwrap();
                }
            });
        }
    });
    assert_eq!(store.version(), u64::from(pull.pieces().end));
    assert_eq!(store.have_bytes(), pull.manifest.size());
    // The journal has each block once: a header of 84 bytes, and 8 bytes per block.
    let blocks: usize = pull.manifest.pieces().iter().map(|piece| piece.blocks.len()).sum();
    let journal = fs::metadata(pull.path("m.gguf.journal")).unwrap().len();
    assert_eq!(journal, 84 + 8 * blocks as u64);
    store.finish(false).unwrap();
    assert_eq!(fs::read(pull.path("m.gguf")).unwrap(), pull.source);
}

#[test]
fn store_accepts_files_that_are_not_gguf() {
    let mut pull = Pull::new();
    pull.source = fixture::random_bytes(9, 3_000_001);
    fs::write(pull.path("source"), &pull.source).unwrap();
    pull.manifest = super::manifest(&pull.path("source"));
    let store = pull.store();
    pull.pieces().for_each(|piece| pull.fill(&store, piece));
    store.finish(false).unwrap();
    assert_eq!(fs::read(pull.path("m.gguf")).unwrap(), pull.source);
}

#[test]
fn store_is_send_and_sync() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Store>();
}
