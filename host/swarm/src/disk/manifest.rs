//! What a file is made of.
//!
//! A manifest is valid by construction: its pieces cover the file without gaps, its blocks the pieces, all
//! within the limits, and its root says everything but the name.

use std::fs::{File, Metadata};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::disk::cut::{Cut, cut};
use crate::disk::digest::Digest;
use crate::disk::facts::Facts;
use crate::disk::gguf::{Gguf, GgufError};
use crate::disk::merkle::Whole;
use crate::disk::wire::JSON;
use crate::disk::{hash, merkle, name};

/// Largest piece by default, in bytes.
pub const PIECE: u64 = 64 << 20;
/// Largest block, in bytes.
pub const BLOCK: u32 = 1 << 20;

/// Version of the format.
pub(crate) const FORMAT: u32 = 1;
/// Largest file.
pub(crate) const FILE: u64 = 16 << 40;
/// What the largest piece may be.
pub(crate) const PIECES: std::ops::RangeInclusive<u64> = 4 << 10..=1 << 30;

/// A run of bytes of the file that is had or not, as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its bytes; at least one.
    pub length: u32,
    /// Of its bytes.
    pub digest: Digest,
}

/// A run of blocks: what a peer is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// Of its bytes.
    pub digest: Digest,
    /// What it is made of; at least one.
    pub blocks: Vec<Block>,
}

/// What a file is made of: pieces, their digests, and a root digest over everything but the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) largest_piece: u64,
    pub(crate) facts: Facts,
    pub(crate) pieces: Vec<Piece>,
    root: Digest,
}

/// There is no such manifest.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing to be spread.
    #[error("{} is empty: there is nothing to spread", .0.display())]
    Empty(PathBuf),
    /// No file.
    #[error("{} is not a file; name the model's file itself", .0.display())]
    NoFile(PathBuf),
    /// The file changed while it was read.
    #[error("{} was changed while it was read; wait until it is complete, then try again", .0.display())]
    Changed(PathBuf),
    /// The file is a broken GGUF.
    #[error("{} is a broken GGUF: {source}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: GgufError,
    },
    /// Pieces of a size that is not possible.
    #[error("pieces of {0} bytes: the largest piece may be {least} to {most} bytes", least = PIECES.start(), most = PIECES.end())]
    PieceSize(u64),
    /// A manifest of too many bytes.
    #[error("the manifest would be {0} bytes long, more than {JSON}: split the model into several files")]
    TooLong(u64),
    /// No JSON, or not that of a manifest.
    #[error("not a manifest: {0}")]
    Json(String),
    /// A later format.
    #[error(
        "the manifest's format is {0}, this program knows {FORMAT}: bring the older of the two up to date"
    )]
    Version(u32),
    /// The parts contradict each other.
    #[error("the manifest contradicts itself: {0}")]
    Inconsistent(String),
}

impl Manifest {
    /// Makes the manifest of a file: reads and hashes all of it, on all cores. `progress` is told of every
    /// so many bytes more, by several threads. The name is the given one, or the model's own, or the file's.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is changed meanwhile, or is a GGUF that is broken.
    pub fn of(
        path: &Path,
        largest_piece: u64,
        name: Option<&str>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Self, ManifestError> {
        let read = |source| ManifestError::Read { path: path.to_owned(), source };
        if !PIECES.contains(&largest_piece) {
            return Err(ManifestError::PieceSize(largest_piece));
        }
        let file = File::open(path).map_err(read)?;
        let before = file.metadata().map_err(read)?;
        if !before.is_file() {
            return Err(ManifestError::NoFile(path.to_owned()));
        }
        let (facts, cuts) = plan(&file, path, before.len(), largest_piece)?;
        let pieces = match hash::pieces(&file, &cuts, progress) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            pieces => Some(pieces.map_err(read)?),
        };
        let after = file.metadata().map_err(read)?;
        let pieces = pieces
            .filter(|_| !was_changed(&before, &after))
            .ok_or_else(|| ManifestError::Changed(path.to_owned()))?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy());
        let name = name::safe(name.or(facts.name.as_deref()).or(stem.as_deref()).unwrap_or_default());
        Self::checked(name, before.len(), largest_piece, facts, pieces)
    }

    /// Of parts that [`super::wire`] has checked.
    pub(crate) fn of_checked(
        name: String,
        size: u64,
        largest_piece: u64,
        facts: Facts,
        pieces: Vec<Piece>,
    ) -> Self {
        let whole = Whole { format: FORMAT, size, largest_piece, facts: &facts };
        let root = merkle::root(&whole, &pieces);
        Self { name, size, largest_piece, facts, pieces, root }
    }

    /// What it is known by: two files of the same root are the same file.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The name; safe as a file's. It is the one thing that the root does not say.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// No piece is larger, but the header may be.
    #[must_use]
    pub fn largest_piece(&self) -> u64 {
        self.largest_piece
    }

    /// What the file says of itself.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The pieces, in the file's order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

/// Whether a file is another one than before.
pub(crate) fn was_changed(before: &Metadata, after: &Metadata) -> bool {
    before.len() != after.len() || before.modified().ok() != after.modified().ok()
}

/// What the file says, and where it is cut.
fn plan(file: &File, path: &Path, size: u64, largest_piece: u64) -> Result<(Facts, Vec<Cut>), ManifestError> {
    if size == 0 {
        return Err(ManifestError::Empty(path.to_owned()));
    }
    // Before the cuts are made, and again when it is known how many they are.
    fits(size.div_ceil(u64::from(BLOCK)), 1)?;
    let gguf = match Gguf::read(BufReader::with_capacity(1 << 16, file), size) {
        Ok(gguf) => gguf,
        Err(GgufError::Read(source)) => {
            return Err(ManifestError::Read { path: path.to_owned(), source });
        }
        Err(source) => return Err(ManifestError::Gguf { path: path.to_owned(), source }),
    };
    let cuts = cut(size, gguf.as_ref(), largest_piece);
    fits(cuts.iter().map(|cut| cut.blocks.len() as u64).sum(), cuts.len() as u64)?;
    Ok((gguf.map(|gguf| gguf.facts).unwrap_or_default(), cuts))
}

/// Whether the manifest's JSON would be read by others.
fn fits(blocks: u64, pieces: u64) -> Result<(), ManifestError> {
    // `[1048576,"DIGEST"],` and `{"sha256":"DIGEST","blocks":[]},`, and room for the rest.
    let estimate = blocks.saturating_mul(77).saturating_add(pieces.saturating_mul(90)) + (1 << 14);
    if estimate > JSON { Err(ManifestError::TooLong(estimate)) } else { Ok(()) }
}
