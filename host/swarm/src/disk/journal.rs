//! Which blocks of a part file survive power loss.
//!
//! A block is in the journal only when its bytes were on the disk before. A line says which file the journal
//! is of; behind it are records of a fixed size, each with a checksum over the root, its place and its
//! block. The first record that is torn, or damaged, ends the journal: it and all behind it are dropped.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::disk::at;
use crate::disk::digest::Digest;
use crate::disk::error::StoreError;

const MAGIC: &str = "tightwad journal 1 ";
/// The line, with its end.
const LINE: usize = MAGIC.len() + 64 + 1;
/// Number of a block, checksum.
const RECORD: usize = 8;

/// The open, locked journal of a pull.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    root: Digest,
    records: u64,
}

/// A journal, and what it said.
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    /// Blocks in it.
    pub(crate) blocks: Vec<u32>,
    /// Whether there was none before.
    pub(crate) new: bool,
}

impl Journal {
    /// Makes the journal, or opens it; nobody else can, meanwhile. `count`: blocks of the file.
    pub(crate) fn open(path: PathBuf, root: Digest, count: u32) -> Result<Opened, StoreError> {
        let file = lock(&path)?;
        let mut journal = Self { path, file, root, records: 0 };
        let text = journal.text(count).map_err(StoreError::of(&journal.path))?;
        let line = journal.line();
        if line.starts_with(&text) && text.len() < LINE {
            // None, or one that lost its power before it was of any use.
            journal.reset().map_err(StoreError::of(&journal.path))?;
            return Ok(Opened { journal, blocks: Vec::new(), new: true });
        }
        if !text.starts_with(&line) {
            return Err(journal.other(&text));
        }
        let blocks = journal.blocks(&text[LINE..], count);
        journal.records = blocks.len() as u64;
        let length = (LINE + blocks.len() * RECORD) as u64;
        let end = journal.file.set_len(length).and_then(|()| journal.file.seek(SeekFrom::End(0)));
        end.map_err(StoreError::of(&journal.path))?;
        Ok(Opened { journal, blocks, new: false })
    }

    /// Adds blocks, and comes back when the disk has them.
    pub(crate) fn append(&mut self, blocks: &[u32]) -> io::Result<()> {
        let mut records = Vec::with_capacity(blocks.len() * RECORD);
        for (place, block) in (self.records..).zip(blocks) {
            records.extend(record(self.root, place, *block));
        }
        self.file.write_all(&records)?;
        self.file.sync_data()?;
        self.records += blocks.len() as u64;
        Ok(())
    }

    /// Forgets all blocks, and comes back when the disk has that.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        self.records = 0;
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&self.line())?;
        self.file.sync_all()?;
        at::sync_directory(&self.path)
    }

    /// Removes the journal's file.
    pub(crate) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        at::sync_directory(&self.path)
    }

    fn line(&self) -> Vec<u8> {
        format!("{MAGIC}{}\n", self.root).into_bytes()
    }

    /// All that can be of use: a block is recorded once.
    fn text(&mut self, count: u32) -> io::Result<Vec<u8>> {
        let most = LINE as u64 + u64::from(count) * RECORD as u64;
        let mut text = Vec::new();
        (&self.file).take(most).read_to_end(&mut text)?;
        Ok(text)
    }

    fn blocks(&self, records: &[u8], count: u32) -> Vec<u32> {
        let mut blocks = Vec::new();
        for (place, bytes) in (0..).zip(records.chunks_exact(RECORD)) {
            let block = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            if block >= count || record(self.root, place, block) != bytes {
                break;
            }
            blocks.push(block);
        }
        blocks
    }

    fn other(&self, text: &[u8]) -> StoreError {
        let found = text
            .get(..LINE)
            .and_then(|line| std::str::from_utf8(line).ok())
            .and_then(|line| line.strip_prefix(MAGIC)?.strip_suffix('\n')?.parse().ok());
        match found {
            Some(found) => StoreError::OtherRoot { journal: self.path.clone(), found, wanted: self.root },
            None => StoreError::Foreign(self.path.clone()),
        }
    }
}

/// Opens the file, and locks it until it is closed.
fn lock(path: &Path) -> Result<File, StoreError> {
    for _ in 0..8 {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(StoreError::of(path))?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(StoreError::io(path, error)),
        }
        // Who had the lock may have finished and removed the file between the two.
        if at::leads_to(path, &file).map_err(StoreError::of(path))? {
            return Ok(file);
        }
    }
    Err(StoreError::Busy(path.to_owned()))
}

fn record(root: Digest, place: u64, block: u32) -> [u8; RECORD] {
    let block = block.to_le_bytes();
    let mut sum = crc32fast::Hasher::new();
    sum.update(&root.0);
    sum.update(&place.to_le_bytes());
    sum.update(&block);
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&block);
    record[4..].copy_from_slice(&sum.finalize().to_le_bytes());
    record
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ROOT: Digest = Digest([7; 32]);

    fn blocks(path: &Path) -> Vec<u32> {
        Journal::open(path.to_owned(), ROOT, 100).unwrap().blocks
    }

    /// A journal of these blocks, and its bytes.
    fn made(path: &Path, blocks: &[u32]) -> Vec<u8> {
        let mut opened = Journal::open(path.to_owned(), ROOT, 100).unwrap();
        assert!(opened.new);
        opened.journal.append(&blocks[..1]).unwrap();
        opened.journal.append(&blocks[1..]).unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn a_torn_record_is_dropped_and_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let whole = made(&path, &[3, 99, 0]);
        assert_eq!(blocks(&path), [3, 99, 0]);
        for torn in 1..=RECORD {
            fs::write(&path, &whole[..whole.len() - torn]).unwrap();
            let mut opened = Journal::open(path.clone(), ROOT, 100).unwrap();
            assert_eq!(opened.blocks, [3, 99], "{torn} bytes are missing");
            opened.journal.append(&[5]).unwrap();
            drop(opened);
            assert_eq!(blocks(&path), [3, 99, 5]);
        }
    }

    #[test]
    fn a_damaged_record_ends_the_journal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let whole = made(&path, &[3, 99, 0]);
        for at in LINE + RECORD..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            fs::write(&path, &damaged).unwrap();
            let good = if at < LINE + 2 * RECORD { vec![3] } else { vec![3, 99] };
            assert_eq!(blocks(&path), good, "byte {at}");
        }
        // What a file system may leave behind the end, and records in another's place.
        fs::write(&path, [&whole[..], &[0; 20]].concat()).unwrap();
        assert_eq!(blocks(&path), [3, 99, 0]);
        fs::write(&path, [&whole[..], &whole[LINE..]].concat()).unwrap();
        assert_eq!(blocks(&path), [3, 99, 0]);
    }

    #[test]
    fn a_journal_that_lost_its_line_is_new() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let whole = made(&path, &[1, 2]);
        for length in 0..LINE {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(Journal::open(path.clone(), ROOT, 100).unwrap().new, "{length} bytes");
        }
        for strange in [&b"a diary"[..], &[0; 500], &whole[..LINE].to_ascii_uppercase()] {
            fs::write(&path, strange).unwrap();
            let error = Journal::open(path.clone(), ROOT, 100).err().unwrap();
            assert!(matches!(error, StoreError::Foreign(_)), "{error}");
        }
    }

    #[test]
    fn blocks_that_the_file_does_not_have_are_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        made(&path, &[1, 99]);
        assert_eq!(Journal::open(path, ROOT, 99).unwrap().blocks, [1]);
    }

    #[test]
    fn a_journal_has_one_owner_and_one_root() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let opened = Journal::open(path.clone(), ROOT, 100).unwrap();
        let error = Journal::open(path.clone(), ROOT, 100).err().unwrap();
        assert!(matches!(error, StoreError::Busy(_)), "{error}");
        drop(opened);
        let error = Journal::open(path, Digest([8; 32]), 100).err().unwrap();
        assert!(matches!(error, StoreError::OtherRoot { found: ROOT, .. }), "{error}");
    }
}
