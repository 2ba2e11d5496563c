//! The blocks of one piece, which several fetches share.
//!
//! Invariant: a block that is missing belongs to one fetch at most; while it arrives, one more fetch may
//! bring it too. A fetch that is over owns none. `left` counts the blocks that are not had.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tightwad_core::sync;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::disk::format::Piece;

/// Bytes that one request asks for, at most; but at least a block.
const RUN: u64 = 4 << 20;
/// After this time a block that still arrives may be fetched from somebody else too.
const SLOW: Duration = Duration::from_secs(1);

/// Names a fetch of this pull.
pub(crate) type FetchId = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Claimed(FetchId),
    Arriving { by: FetchId, since: Instant, also: Option<FetchId> },
    Had,
}

/// What a fetch is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Bring these blocks.
    Run(Range<u32>),
    /// Others bring the rest; look again when something changed.
    Wait,
    /// Nothing is left.
    Over,
}

/// What became of a block that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It was had already.
    Twice,
    /// It is had now.
    Kept,
    /// It is had now, and was the last one.
    Last,
}

/// The blocks of one piece.
#[derive(Debug)]
pub(crate) struct Work {
    /// Where each block begins in the file, and where the last one ends.
    starts: Vec<u64>,
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug)]
struct Table {
    blocks: Vec<State>,
    left: usize,
}

impl Work {
    pub(crate) fn new(piece: &Piece, missing: &[u32]) -> Self {
        let mut starts = vec![piece.offset];
        let mut end = piece.offset;
        for block in &piece.blocks {
            end += u64::from(block.length);
            starts.push(end);
        }
        let mut blocks = vec![State::Had; piece.blocks.len()];
        for &block in missing {
            if let Some(state) = blocks.get_mut(block as usize) {
                *state = State::Missing;
            }
        }
        let left = blocks.iter().filter(|state| **state == State::Missing).count();
        Self { starts, table: Mutex::new(Table { blocks, left }), changed: Notify::new() }
    }

    /// Where `blocks` lie in the file.
    pub(crate) fn bytes(&self, blocks: &Range<u32>) -> Range<u64> {
        self.starts[blocks.start as usize]..self.starts[blocks.end as usize]
    }

    /// Bytes of `block`.
    pub(crate) fn length(&self, block: u32) -> usize {
        let bytes = self.bytes(&(block..block + 1));
        usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX)
    }

    /// What `by` is to bring next: from the start or from the end, so that two meet in the middle. Where
    /// everything is taken, half of what another one has only been promised; then the last block, twice.
    pub(crate) fn claim(&self, by: FetchId, from_end: bool) -> Claim {
        let mut table = self.lock();
        if table.left == 0 {
            return Claim::Over;
        }
        let run = self.free(&table, from_end).or_else(|| table.promised(by));
        if let Some(run) = run {
            table.blocks[run.clone()].fill(State::Claimed(by));
            return Claim::Run(numbers(run));
        }
        table.double(by).map_or(Claim::Wait, |block| Claim::Run(numbers(block..block + 1)))
    }

    /// A run of missing blocks that nobody brings.
    fn free(&self, table: &Table, from_end: bool) -> Option<Range<usize>> {
        let free = |block: &usize| table.blocks[*block] == State::Missing;
        let fits = |run: Range<usize>| self.starts[run.end] - self.starts[run.start] <= RUN;
        let mut all = 0..table.blocks.len();
        if from_end {
            let end = all.rfind(free)? + 1;
            let starts = (0..end - 1).rev().take_while(|start| free(start) && fits(*start..end));
            Some(starts.last().unwrap_or(end - 1)..end)
        } else {
            let start = all.find(free)?;
            let ends =
                (start + 1..table.blocks.len()).take_while(|block| free(block) && fits(start..block + 1));
            Some(start..ends.last().unwrap_or(start) + 1)
        }
    }

    /// True when `by` may go on with `block`: it is still missing, and its own.
    pub(crate) fn begin(&self, by: FetchId, block: u32) -> bool {
        let mut table = self.lock();
        let state = &mut table.blocks[block as usize];
        match *state {
            State::Claimed(owner) if owner == by => {
                *state = State::Arriving { by, since: Instant::now(), also: None };
                true
            }
            State::Arriving { by: owner, also, .. } => owner == by || also == Some(by),
            _ => false,
        }
    }

    /// True when nobody needs `block` any more.
    pub(crate) fn had(&self, block: u32) -> bool {
        self.lock().blocks[block as usize] == State::Had
    }

    /// `block` is written.
    pub(crate) fn settle(&self, block: u32) -> Settled {
        let mut table = self.lock();
        let state = &mut table.blocks[block as usize];
        if *state == State::Had {
            return Settled::Twice;
        }
        *state = State::Had;
        table.left -= 1;
        self.changed.notify_waiters();
        if table.left == 0 { Settled::Last } else { Settled::Kept }
    }

    /// `by` brings nothing more of what it claimed.
    pub(crate) fn release(&self, by: FetchId) {
        for state in &mut self.lock().blocks {
            *state = match *state {
                State::Claimed(owner) if owner == by => State::Missing,
                State::Arriving { by: owner, also: None, .. } if owner == by => State::Missing,
                State::Arriving { by: owner, also: Some(other), since } if owner == by => {
                    State::Arriving { by: other, since, also: None }
                }
                State::Arriving { by: owner, also: Some(other), since } if other == by => {
                    State::Arriving { by: owner, since, also: None }
                }
                other => other,
            };
        }
        self.changed.notify_waiters();
    }

    /// Waits until something changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        sync::lock(&self.table)
    }
}

impl Table {
    /// The back half of the last run that another fetch has claimed, but has not come to yet.
    fn promised(&self, by: FetchId) -> Option<Range<usize>> {
        let other = |state: &State| matches!(state, State::Claimed(owner) if *owner != by);
        let end = self.blocks.iter().rposition(other)? + 1;
        let owner = self.blocks[end - 1];
        let length = self.blocks[..end].iter().rev().take_while(|state| **state == owner).count();
        Some(end - length.div_ceil(2)..end)
    }

    /// The block that has been arriving for longest, from somebody else only; when it is the only one left, or
    /// is slow.
    fn double(&mut self, by: FetchId) -> Option<usize> {
        let left = self.left;
        let arriving = self.blocks.iter_mut().enumerate().filter_map(|(block, state)| match state {
            State::Arriving { by: owner, since, also: also @ None } if *owner != by => {
                Some((*since, block, also))
            }
            _ => None,
        });
        let (since, block, also) = arriving.min_by_key(|(since, block, _)| (*since, *block))?;
        let due = left == 1 || since.elapsed() >= SLOW;
        due.then(|| {
            *also = Some(by);
            block
        })
    }
}

/// Blocks of a piece are counted in 32 bits.
fn numbers(run: Range<usize>) -> Range<u32> {
    let number = |block| u32::try_from(block).unwrap_or(u32::MAX);
    number(run.start)..number(run.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::digest::Digest;
    use crate::disk::format::Block;

    fn work(blocks: usize) -> Work {
        let block = Block { length: 1 << 20, digest: Digest([0; 32]) };
        let piece = Piece {
            offset: 100,
            length: (blocks as u64) << 20,
            digest: Digest([0; 32]),
            blocks: vec![block; blocks],
        };
        let missing: Vec<u32> = (0..u32::try_from(blocks).unwrap()).collect();
        Work::new(&piece, &missing)
    }

    #[test]
    fn two_fetches_meet_in_the_middle() {
        let work = work(10);
        assert_eq!(work.claim(1, false), Claim::Run(0..4));
        assert_eq!(work.claim(2, true), Claim::Run(6..10));
        assert_eq!(work.claim(1, false), Claim::Run(4..6));
        assert_eq!(work.bytes(&(4..6)), 100 + (4 << 20)..100 + (6 << 20));
    }

    #[test]
    fn idle_fetches_take_what_others_were_promised() {
        let work = work(4);
        assert_eq!(work.claim(1, false), Claim::Run(0..4));
        assert!(work.begin(1, 0));
        assert_eq!(work.claim(2, true), Claim::Run(2..4));
        assert!(!work.begin(1, 2), "it is another's now");
        for block in [2, 3] {
            assert!(work.begin(2, block));
            assert_eq!(work.settle(block), Settled::Kept);
        }
        assert_eq!(work.claim(2, true), Claim::Run(1..2));
        assert!(work.begin(2, 1));
        assert_eq!(work.settle(1), Settled::Kept);
        // The very last one may come twice.
        assert_eq!(work.claim(2, true), Claim::Run(0..1));
        assert!(work.begin(2, 0) && work.begin(1, 0));
        assert_eq!(work.claim(3, true), Claim::Wait, "but not three times");
        assert_eq!(work.settle(0), Settled::Last);
        assert_eq!(work.settle(0), Settled::Twice);
        assert_eq!(work.claim(3, false), Claim::Over);
    }

    #[test]
    fn what_a_fetch_leaves_is_missing_again() {
        let work = work(3);
        assert_eq!(work.claim(1, false), Claim::Run(0..3));
        assert!(work.begin(1, 0));
        assert_eq!(work.settle(0), Settled::Kept);
        assert!(work.begin(1, 1));
        work.release(1);
        assert_eq!(work.claim(2, false), Claim::Run(1..3));
    }

    #[test]
    fn a_doubled_block_goes_to_who_is_left() {
        let work = work(1);
        assert_eq!(work.claim(1, false), Claim::Run(0..1));
        assert!(work.begin(1, 0));
        assert_eq!(work.claim(2, true), Claim::Run(0..1));
        work.release(1);
        assert!(work.begin(2, 0) && !work.begin(1, 0));
        work.release(2);
        assert_eq!(work.claim(3, false), Claim::Run(0..1));
    }
}
