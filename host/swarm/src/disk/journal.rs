//! The journal of a part file: the blocks that survive power loss.
//!
//! Invariant: a block enters the journal only after the disk has its bytes. The header line names the file's
//! root. Records of a fixed size follow, each with a checksum over the root, its position and its block. The
//! first torn or damaged record ends the journal: opening drops this record and all later ones.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::file_io;

const MAGIC: &str = "tightwad journal 1 ";
/// Length of the header line, with its line end.
const HEADER_BYTES: usize = MAGIC.len() + 64 + 1;
/// Length of a record: the index of a block (4 bytes) and a CRC-32 (4 bytes).
const RECORD_BYTES: usize = 8;

/// The open, locked journal of a pull.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    root: Digest,
    records: u64,
}

/// An open journal, and the blocks that it records.
pub(crate) struct OpenedJournal {
    pub(crate) journal: Journal,
    /// Indexes of the recorded blocks.
    pub(crate) blocks: Vec<u32>,
    /// Whether no usable journal existed before.
    pub(crate) is_new: bool,
}

impl Journal {
    /// Creates or opens the journal, and locks it for this process. The file has `block_count` blocks.
    pub(crate) fn open(path: PathBuf, root: Digest, block_count: u32) -> Result<OpenedJournal, StoreError> {
        let file = open_locked(&path)?;
        let mut journal = Self { path, file, root, records: 0 };
        let content = journal.read_content(block_count).map_err(StoreError::for_path(&journal.path))?;
        let header = journal.header();
        if header.starts_with(&content) && content.len() < HEADER_BYTES {
            // The journal is empty, or power loss cut its header: it records nothing.
            journal.reset().map_err(StoreError::for_path(&journal.path))?;
            return Ok(OpenedJournal { journal, blocks: Vec::new(), is_new: true });
        }
        if !content.starts_with(&header) {
            return Err(journal.mismatch(&content));
        }
        let blocks = journal.parse_records(&content[HEADER_BYTES..], block_count);
        journal.records = blocks.len() as u64;
        let length = (HEADER_BYTES + blocks.len() * RECORD_BYTES) as u64;
        let end = journal.file.set_len(length).and_then(|()| journal.file.seek(SeekFrom::End(0)));
        end.map_err(StoreError::for_path(&journal.path))?;
        Ok(OpenedJournal { journal, blocks, is_new: false })
    }

    /// Appends blocks, and returns when the disk has the records.
    pub(crate) fn append(&mut self, blocks: &[u32]) -> io::Result<()> {
        let mut records = Vec::with_capacity(blocks.len() * RECORD_BYTES);
        for (position, block) in (self.records..).zip(blocks) {
            records.extend(encode_record(self.root, position, *block));
        }
        self.file.write_all(&records)?;
        self.file.sync_data()?;
        self.records += blocks.len() as u64;
        Ok(())
    }

    /// Replaces all records, and returns when the disk has them.
    pub(crate) fn rewrite(&mut self, blocks: &[u32]) -> io::Result<()> {
        self.reset()?;
        self.append(blocks)
    }

    /// Removes all records, and returns when the disk has the empty journal.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        self.records = 0;
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&self.header())?;
        self.file.sync_all()?;
        file_io::sync_parent(&self.path)
    }

    /// Removes the journal's file.
    pub(crate) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        file_io::sync_parent(&self.path)
    }

    fn header(&self) -> Vec<u8> {
        format!("{MAGIC}{}\n", self.root).into_bytes()
    }

    /// Reads at most one record per block: a valid journal has no more.
    fn read_content(&mut self, block_count: u32) -> io::Result<Vec<u8>> {
        let max = HEADER_BYTES as u64 + u64::from(block_count) * RECORD_BYTES as u64;
        let mut content = Vec::new();
        (&self.file).take(max).read_to_end(&mut content)?;
        Ok(content)
    }

    fn parse_records(&self, records: &[u8], block_count: u32) -> Vec<u32> {
        let mut blocks = Vec::new();
        for (position, bytes) in (0..).zip(records.chunks_exact(RECORD_BYTES)) {
            let block = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            if block >= block_count || encode_record(self.root, position, block) != bytes {
                break;
            }
            blocks.push(block);
        }
        blocks
    }

    /// The error of a journal with another header.
    fn mismatch(&self, content: &[u8]) -> StoreError {
        let journal_root = content
            .get(..HEADER_BYTES)
            .and_then(|line| std::str::from_utf8(line).ok())
            .and_then(|line| line.strip_prefix(MAGIC)?.strip_suffix('\n')?.parse().ok());
        match journal_root {
            Some(journal_root) => {
                StoreError::OtherRoot { journal: self.path.clone(), journal_root, wanted_root: self.root }
            }
            None => StoreError::Foreign(self.path.clone()),
        }
    }
}

/// Opens the file, and locks it until it is closed.
fn open_locked(path: &Path) -> Result<File, StoreError> {
    for _ in 0..8 {
        let file = file_io::open_options().create(true).truncate(false).open(path);
        let file = file.map_err(StoreError::for_path(path))?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(StoreError::from_io(path, error)),
        }
        // The last owner of the lock may have removed the file after this call opened it.
        if file_io::is_same_file(path, &file).map_err(StoreError::for_path(path))? {
            return Ok(file);
        }
    }
    Err(StoreError::Busy(path.to_owned()))
}

fn encode_record(root: Digest, position: u64, block: u32) -> [u8; RECORD_BYTES] {
    let block = block.to_le_bytes();
    let mut crc = crc32fast::Hasher::new();
    crc.update(&root.0);
    crc.update(&position.to_le_bytes());
    crc.update(&block);
    let mut record = [0; RECORD_BYTES];
    record[..4].copy_from_slice(&block);
    record[4..].copy_from_slice(&crc.finalize().to_le_bytes());
    record
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ROOT: Digest = Digest([7; 32]);

    fn recorded_blocks(path: &Path) -> Vec<u32> {
        Journal::open(path.to_owned(), ROOT, 100).unwrap().blocks
    }

    /// Creates a journal of these blocks; returns its bytes.
    fn create_journal(path: &Path, blocks: &[u32]) -> Vec<u8> {
        let mut opened = Journal::open(path.to_owned(), ROOT, 100).unwrap();
        assert!(opened.is_new);
        opened.journal.append(&blocks[..1]).unwrap();
        opened.journal.append(&blocks[1..]).unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn torn_record_is_dropped_and_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let intact = create_journal(&path, &[3, 99, 0]);
        assert_eq!(recorded_blocks(&path), [3, 99, 0]);
        for torn in 1..=RECORD_BYTES {
            fs::write(&path, &intact[..intact.len() - torn]).unwrap();
            let mut opened = Journal::open(path.clone(), ROOT, 100).unwrap();
            assert_eq!(opened.blocks, [3, 99], "{torn} bytes are missing");
            opened.journal.append(&[5]).unwrap();
            drop(opened);
            assert_eq!(recorded_blocks(&path), [3, 99, 5]);
        }
    }

    #[test]
    fn damaged_record_ends_the_journal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let intact = create_journal(&path, &[3, 99, 0]);
        for at in HEADER_BYTES + RECORD_BYTES..intact.len() {
            let mut damaged = intact.clone();
            damaged[at] ^= 4;
            fs::write(&path, &damaged).unwrap();
            let good = if at < HEADER_BYTES + 2 * RECORD_BYTES { vec![3] } else { vec![3, 99] };
            assert_eq!(recorded_blocks(&path), good, "byte {at}");
        }
        // A file system may leave zeros after the end. Copied records are at a wrong position.
        fs::write(&path, [&intact[..], &[0; 20]].concat()).unwrap();
        assert_eq!(recorded_blocks(&path), [3, 99, 0]);
        fs::write(&path, [&intact[..], &intact[HEADER_BYTES..]].concat()).unwrap();
        assert_eq!(recorded_blocks(&path), [3, 99, 0]);
    }

    #[test]
    fn journal_without_header_is_new() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let intact = create_journal(&path, &[1, 2]);
        for length in 0..HEADER_BYTES {
            fs::write(&path, &intact[..length]).unwrap();
            assert!(Journal::open(path.clone(), ROOT, 100).unwrap().is_new, "{length} bytes");
        }
        for other in [&b"a diary"[..], &[0; 500], &intact[..HEADER_BYTES].to_ascii_uppercase()] {
            fs::write(&path, other).unwrap();
            let error = Journal::open(path.clone(), ROOT, 100).err().unwrap();
            assert!(matches!(error, StoreError::Foreign(_)), "{error}");
        }
    }

    #[test]
    fn journal_drops_blocks_that_the_file_lacks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        create_journal(&path, &[1, 99]);
        assert_eq!(Journal::open(path, ROOT, 99).unwrap().blocks, [1]);
    }

    #[test]
    fn journal_has_one_owner_and_one_root() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let opened = Journal::open(path.clone(), ROOT, 100).unwrap();
        let error = Journal::open(path.clone(), ROOT, 100).err().unwrap();
        assert!(matches!(error, StoreError::Busy(_)), "{error}");
        drop(opened);
        let error = Journal::open(path, Digest([8; 32]), 100).err().unwrap();
        assert!(matches!(error, StoreError::OtherRoot { journal_root: ROOT, .. }), "{error}");
    }
}
