//! Hashing a file: each byte is read once, by as many threads as there are cores.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::{io, panic};

use sha2::{Digest as _, Sha256};

use crate::disk::at;
use crate::disk::cut::Cut;
use crate::disk::digest::Digest;
use crate::disk::format::{Block, Piece};

/// Most threads: each keeps one block in memory.
const THREADS: usize = 32;

/// Hashes the pieces; `progress` hears of every so many bytes more, from any thread.
pub(crate) fn pieces(file: &File, cuts: &[Cut], progress: &(dyn Fn(u64) + Sync)) -> io::Result<Vec<Piece>> {
    each(cuts, |buffer, cut| piece(file, cut, buffer, progress))
}

/// Does `work` on every item, on all cores, in no order; the results are in order. Each thread has a
/// buffer. After the first error no more is begun.
pub(crate) fn each<T: Sync, U: Send, E: Send>(
    items: &[T],
    work: impl Fn(&mut Vec<u8>, &T) -> Result<U, E> + Sync,
) -> Result<Vec<U>, E> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let one = || {
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
        // This thread works too, should the system not want to give us more.
        let more = cores.min(THREADS).min(items.len()).saturating_sub(1);
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, one).ok();
        let threads: Vec<_> = (0..more).filter_map(spawn).collect();
        let mut results = vec![one()];
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

fn piece(file: &File, cut: &Cut, buffer: &mut Vec<u8>, progress: &(dyn Fn(u64) + Sync)) -> io::Result<Piece> {
    let mut whole = Sha256::new();
    let mut blocks = Vec::with_capacity(cut.blocks.len());
    let mut offset = cut.offset;
    for &length in &cut.blocks {
        buffer.resize(length as usize, 0);
        at::read(file, buffer, offset)?;
        let digest = Digest::of(buffer);
        // A piece of one block has that block's digest.
        if cut.blocks.len() > 1 {
            whole.update(&buffer);
        }
        blocks.push(Block { length, digest });
        offset += u64::from(length);
        progress(u64::from(length));
    }
    let digest = match blocks.as_slice() {
        [only] => only.digest,
        _ => Digest::finish(whole),
    };
    Ok(Piece { offset: cut.offset, length: cut.length, digest, blocks })
}
