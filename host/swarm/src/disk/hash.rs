//! Hashes files: each byte is read once, by as many threads as the machine has cores.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::{io, panic};

use sha2::{Digest as _, Sha256};

use crate::disk::digest::Digest;
use crate::disk::file_io;
use crate::disk::format::{Block, Piece};
use crate::disk::layout::PieceLayout;

/// Largest number of threads. Each one keeps one block in memory.
const MAX_THREADS: usize = 32;

/// Hashes the pieces. Any thread may call `progress`, with the number of bytes since its last call.
pub(crate) fn pieces(
    file: &File,
    layouts: &[PieceLayout],
    progress: &(dyn Fn(u64) + Sync),
) -> io::Result<Vec<Piece>> {
    parallel_map(layouts, |buffer, layout| hash_piece(file, layout, buffer, progress))
}

/// Calls `work` with every item and a buffer of the thread, on all cores, in any order. The results have the
/// order of the items. After the first error no further item begins.
pub(crate) fn parallel_map<T: Sync, U: Send, E: Send>(
    items: &[T],
    work: impl Fn(&mut Vec<u8>, &T) -> Result<U, E> + Sync,
) -> Result<Vec<U>, E> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let run_worker = || {
        let (mut done, mut buffer) = (Vec::new(), Vec::new());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return Ok(done) };
            let result = work(&mut buffer, item).inspect_err(|_| {
                next.store(items.len(), Ordering::Relaxed);
            })?;
            done.push((index, result));
        }
    };
    let results = thread::scope(|scope| {
        // The calling thread works too: the system may refuse further threads.
        let extra = cores.min(MAX_THREADS).min(items.len()).saturating_sub(1);
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, run_worker).ok();
        let threads: Vec<_> = (0..extra).filter_map(spawn).collect();
        let mut results = vec![run_worker()];
        let join = |thread: ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        };
        results.extend(threads.into_iter().map(join));
        results.into_iter().collect::<Result<Vec<_>, E>>()
    })?;
    let mut results: Vec<(usize, U)> = results.into_iter().flatten().collect();
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

fn hash_piece(
    file: &File,
    layout: &PieceLayout,
    buffer: &mut Vec<u8>,
    progress: &(dyn Fn(u64) + Sync),
) -> io::Result<Piece> {
    let mut hasher = Sha256::new();
    let mut blocks = Vec::with_capacity(layout.blocks.len());
    let mut offset = layout.offset;
    for &length in &layout.blocks {
        buffer.resize(length as usize, 0);
        file_io::read_at(file, buffer, offset)?;
        let digest = Digest::of(buffer);
        // The digest of a piece with one block is that block's digest.
        if layout.blocks.len() > 1 {
            hasher.update(&buffer);
        }
        blocks.push(Block { length, digest });
        offset += u64::from(length);
        progress(u64::from(length));
    }
    let digest = match blocks.as_slice() {
        [only] => only.digest,
        _ => Digest::from_hasher(hasher),
    };
    Ok(Piece { offset: layout.offset, length: layout.length, digest, blocks })
}
