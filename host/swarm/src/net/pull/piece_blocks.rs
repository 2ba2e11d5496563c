//! The blocks of one piece, which several fetches share.
//!
//! Invariant: at most one fetch owns a missing block. While the block arrives, one further fetch may request
//! it too. A fetch that ended owns no block. `remaining` counts the incomplete blocks.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tightwad_core::sync;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::disk::format::Piece;

/// Greatest number of bytes per request. A larger block still is one request.
const MAX_RUN_BYTES: u64 = 4 << 20;
/// A block that arrives for longer than this may be requested from another peer too.
const SLOW_BLOCK_TIME: Duration = Duration::from_secs(1);

/// The id of a fetch within its pull.
pub(crate) type FetchId = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockState {
    Missing,
    Claimed(FetchId),
    Arriving { owner: FetchId, since: Instant, duplicate: Option<FetchId> },
    Complete,
}

/// The next action of a fetch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Fetch these blocks.
    Run(Range<u32>),
    /// Other fetches own all remaining blocks. Claim again after a change.
    Wait,
    /// The piece is complete.
    Complete,
}

/// The result of a written block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteResult {
    /// Another fetch had completed the block already.
    Duplicate,
    /// The block is complete.
    CompletedBlock,
    /// The block is complete, and it was the piece's last one.
    CompletedPiece,
}

/// The blocks of one piece.
#[derive(Debug)]
pub(crate) struct PieceBlocks {
    /// The offset of each block in the file, and the end of the last block.
    offsets: Vec<u64>,
    table: Mutex<BlockTable>,
    changed: Notify,
}

#[derive(Debug)]
struct BlockTable {
    blocks: Vec<BlockState>,
    remaining: usize,
}

impl PieceBlocks {
    pub(crate) fn new(piece: &Piece, missing: &[u32]) -> Self {
        let mut offsets = vec![piece.offset];
        let mut end = piece.offset;
        for block in &piece.blocks {
            end += u64::from(block.length);
            offsets.push(end);
        }
        let mut blocks = vec![BlockState::Complete; piece.blocks.len()];
        for &block in missing {
            if let Some(state) = blocks.get_mut(block as usize) {
                *state = BlockState::Missing;
            }
        }
        let remaining = blocks.iter().filter(|state| **state == BlockState::Missing).count();
        Self { offsets, table: Mutex::new(BlockTable { blocks, remaining }), changed: Notify::new() }
    }

    /// The byte range of `blocks` in the file.
    pub(crate) fn byte_range(&self, blocks: &Range<u32>) -> Range<u64> {
        self.offsets[blocks.start as usize]..self.offsets[blocks.end as usize]
    }

    /// Bytes of `block`.
    pub(crate) fn block_length(&self, block: u32) -> usize {
        let bytes = self.byte_range(&(block..block + 1));
        usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX)
    }

    /// Claims the next blocks for `fetch`, from the start or from the end, so that two fetches meet in the
    /// middle. Without free blocks, takes half of a run that another fetch claimed but did not begin. Without
    /// such a run, requests an arriving block from a further peer (endgame).
    pub(crate) fn claim(&self, fetch: FetchId, from_end: bool) -> Claim {
        let mut table = self.lock();
        if table.remaining == 0 {
            return Claim::Complete;
        }
        let run = self.free_run(&table, from_end).or_else(|| table.half_of_claimed_run(fetch));
        if let Some(run) = run {
            table.blocks[run.clone()].fill(BlockState::Claimed(fetch));
            return Claim::Run(block_range(run));
        }
        table.request_duplicate(fetch).map_or(Claim::Wait, |block| Claim::Run(block_range(block..block + 1)))
    }

    /// A run of missing blocks without an owner.
    fn free_run(&self, table: &BlockTable, from_end: bool) -> Option<Range<usize>> {
        let is_free = |block: &usize| table.blocks[*block] == BlockState::Missing;
        let fits = |run: Range<usize>| self.offsets[run.end] - self.offsets[run.start] <= MAX_RUN_BYTES;
        let mut blocks = 0..table.blocks.len();
        if from_end {
            let end = blocks.rfind(is_free)? + 1;
            let starts = (0..end - 1).rev().take_while(|start| is_free(start) && fits(*start..end));
            Some(starts.last().unwrap_or(end - 1)..end)
        } else {
            let start = blocks.find(is_free)?;
            let ends =
                (start + 1..table.blocks.len()).take_while(|block| is_free(block) && fits(start..block + 1));
            Some(start..ends.last().unwrap_or(start) + 1)
        }
    }

    /// Begins or continues `block`. False when the block is complete or belongs to another fetch.
    pub(crate) fn begin_block(&self, fetch: FetchId, block: u32) -> bool {
        let mut table = self.lock();
        let state = &mut table.blocks[block as usize];
        match *state {
            BlockState::Claimed(owner) if owner == fetch => {
                *state = BlockState::Arriving { owner, since: Instant::now(), duplicate: None };
                true
            }
            BlockState::Arriving { owner, duplicate, .. } => owner == fetch || duplicate == Some(fetch),
            _ => false,
        }
    }

    /// Whether `block` is complete.
    pub(crate) fn has_block(&self, block: u32) -> bool {
        self.lock().blocks[block as usize] == BlockState::Complete
    }

    /// Records that the store has `block`.
    pub(crate) fn complete_block(&self, block: u32) -> WriteResult {
        let mut table = self.lock();
        let state = &mut table.blocks[block as usize];
        if *state == BlockState::Complete {
            return WriteResult::Duplicate;
        }
        *state = BlockState::Complete;
        table.remaining -= 1;
        self.changed.notify_waiters();
        if table.remaining == 0 { WriteResult::CompletedPiece } else { WriteResult::CompletedBlock }
    }

    /// Gives back the incomplete blocks of `fetch`.
    pub(crate) fn release(&self, fetch: FetchId) {
        for state in &mut self.lock().blocks {
            *state = match *state {
                BlockState::Claimed(owner) if owner == fetch => BlockState::Missing,
                BlockState::Arriving { owner, duplicate: None, .. } if owner == fetch => BlockState::Missing,
                BlockState::Arriving { owner, duplicate: Some(second), since } if owner == fetch => {
                    BlockState::Arriving { owner: second, since, duplicate: None }
                }
                BlockState::Arriving { owner, duplicate: Some(second), since } if second == fetch => {
                    BlockState::Arriving { owner, since, duplicate: None }
                }
                unchanged => unchanged,
            };
        }
        self.changed.notify_waiters();
    }

    /// Waits until a block completes or a fetch releases blocks.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, BlockTable> {
        sync::lock(&self.table)
    }
}

impl BlockTable {
    /// The back half of the last run that another fetch claimed but did not begin.
    fn half_of_claimed_run(&self, fetch: FetchId) -> Option<Range<usize>> {
        let is_claimed = |state: &BlockState| matches!(state, BlockState::Claimed(owner) if *owner != fetch);
        let end = self.blocks.iter().rposition(is_claimed)? + 1;
        let owner = self.blocks[end - 1];
        let length = self.blocks[..end].iter().rev().take_while(|state| **state == owner).count();
        Some(end - length.div_ceil(2)..end)
    }

    /// Requests a block again that has arrived for longest, from one other fetch only. The block must be slow
    /// or the only remaining one.
    fn request_duplicate(&mut self, fetch: FetchId) -> Option<usize> {
        let remaining = self.remaining;
        let arriving = self.blocks.iter_mut().enumerate().filter_map(|(block, state)| match state {
            BlockState::Arriving { owner, since, duplicate: duplicate @ None } if *owner != fetch => {
                Some((*since, block, duplicate))
            }
            _ => None,
        });
        let (since, block, duplicate) = arriving.min_by_key(|(since, block, _)| (*since, *block))?;
        let is_due = remaining == 1 || since.elapsed() >= SLOW_BLOCK_TIME;
        is_due.then(|| {
            *duplicate = Some(fetch);
            block
        })
    }
}

/// A manifest bounds the number of a piece's blocks below 2^32.
fn block_range(run: Range<usize>) -> Range<u32> {
    let number = |block| u32::try_from(block).unwrap_or(u32::MAX);
    number(run.start)..number(run.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::digest::Digest;
    use crate::disk::format::Block;

    fn piece_blocks(blocks: usize) -> PieceBlocks {
        let block = Block { length: 1 << 20, digest: Digest([0; 32]) };
        let piece = Piece {
            offset: 100,
            length: (blocks as u64) << 20,
            digest: Digest([0; 32]),
            blocks: vec![block; blocks],
        };
        let missing: Vec<u32> = (0..u32::try_from(blocks).unwrap()).collect();
        PieceBlocks::new(&piece, &missing)
    }

    #[test]
    fn two_fetches_meet_in_the_middle() {
        let blocks = piece_blocks(10);
        assert_eq!(blocks.claim(1, false), Claim::Run(0..4));
        assert_eq!(blocks.claim(2, true), Claim::Run(6..10));
        assert_eq!(blocks.claim(1, false), Claim::Run(4..6));
        assert_eq!(blocks.byte_range(&(4..6)), 100 + (4 << 20)..100 + (6 << 20));
    }

    #[test]
    fn idle_fetch_takes_half_of_a_claimed_run() {
        let blocks = piece_blocks(4);
        assert_eq!(blocks.claim(1, false), Claim::Run(0..4));
        assert!(blocks.begin_block(1, 0));
        assert_eq!(blocks.claim(2, true), Claim::Run(2..4));
        assert!(!blocks.begin_block(1, 2), "the block belongs to the other fetch now");
        for block in [2, 3] {
            assert!(blocks.begin_block(2, block));
            assert_eq!(blocks.complete_block(block), WriteResult::CompletedBlock);
        }
        assert_eq!(blocks.claim(2, true), Claim::Run(1..2));
        assert!(blocks.begin_block(2, 1));
        assert_eq!(blocks.complete_block(1), WriteResult::CompletedBlock);
        // The last block may arrive twice.
        assert_eq!(blocks.claim(2, true), Claim::Run(0..1));
        assert!(blocks.begin_block(2, 0) && blocks.begin_block(1, 0));
        assert_eq!(blocks.claim(3, true), Claim::Wait, "a third fetch gets nothing");
        assert_eq!(blocks.complete_block(0), WriteResult::CompletedPiece);
        assert_eq!(blocks.complete_block(0), WriteResult::Duplicate);
        assert_eq!(blocks.claim(3, false), Claim::Complete);
    }

    #[test]
    fn released_blocks_are_missing_again() {
        let blocks = piece_blocks(3);
        assert_eq!(blocks.claim(1, false), Claim::Run(0..3));
        assert!(blocks.begin_block(1, 0));
        assert_eq!(blocks.complete_block(0), WriteResult::CompletedBlock);
        assert!(blocks.begin_block(1, 1));
        blocks.release(1);
        assert_eq!(blocks.claim(2, false), Claim::Run(1..3));
    }

    #[test]
    fn duplicate_fetch_inherits_the_released_block() {
        let blocks = piece_blocks(1);
        assert_eq!(blocks.claim(1, false), Claim::Run(0..1));
        assert!(blocks.begin_block(1, 0));
        assert_eq!(blocks.claim(2, true), Claim::Run(0..1));
        blocks.release(1);
        assert!(blocks.begin_block(2, 0) && !blocks.begin_block(1, 0));
        blocks.release(2);
        assert_eq!(blocks.claim(3, false), Claim::Run(0..1));
    }
}
