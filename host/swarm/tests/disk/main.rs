//! Manifests and stores on a real disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../src/disk/fixture.rs"]
mod fixture;
mod manifest;
mod reuse;
mod store;
mod trouble;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tightwad_swarm::disk::{FileStamp, Manifest, Store};

/// The manifest of a file, with pieces of at most 2 MiB.
fn manifest(path: &Path) -> Arc<Manifest> {
    Arc::new(Manifest::build(path, 2 << 20, None, &|_| ()).unwrap())
}

/// Waits until the clock of the file system, which may tick every few milliseconds only, is after the last
/// write of the file.
fn wait_for_clock_tick(path: &Path) {
    let modified = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
    let probe = path.with_extension("probe");
    while !probe.exists() || modified(&probe) <= modified(path) {
        std::fs::write(&probe, b"x").unwrap();
    }
}

/// As [`manifest`], and writes the sidecar.
fn hash_with_sidecar(path: &Path) -> Arc<Manifest> {
    let stamp = FileStamp::of(path).unwrap();
    let manifest = manifest(path);
    manifest.write_sidecar(path, stamp).unwrap();
    manifest
}

/// A directory with a model, and the pull of that model to `m.gguf` there.
struct Pull {
    directory: tempfile::TempDir,
    source: Vec<u8>,
    manifest: Arc<Manifest>,
}

impl Pull {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let model = fixture::Model::layered("Tiny Test", "{{ messages }}");
        let path = model.save(directory.path(), "source.gguf");
        Self { source: model.bytes(), manifest: manifest(&path), directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn store(&self) -> Store {
        Store::resume(&self.path("m.gguf"), Arc::clone(&self.manifest), &|_| ()).unwrap()
    }

    /// The bytes of a block.
    fn block(&self, piece: u32, block: u32) -> &[u8] {
        let parent = &self.manifest.pieces()[piece as usize];
        let before: u64 = parent.blocks[..block as usize].iter().map(|block| u64::from(block.length)).sum();
        let at = usize::try_from(parent.offset + before).unwrap();
        &self.source[at..at + parent.blocks[block as usize].length as usize]
    }

    /// Writes all missing blocks of a piece.
    fn fill(&self, store: &Store, piece: u32) {
        for block in store.missing_blocks(piece) {
            store.write(piece, block, self.block(piece, block)).unwrap();
        }
        assert!(store.has_piece(piece));
    }

    fn pieces(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.manifest.pieces().len()).unwrap()
    }
}
