//! Defects of a manifest, and of the file that it describes.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use tightwad_gguf::GgufError;

use crate::disk::format::{FORMAT_VERSION, MAX_MANIFEST_BYTES, MAX_PIECES, PIECE_SIZES};

/// A manifest cannot be built, parsed or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is empty.
    #[error("{} is empty: there is nothing to seed", .0.display())]
    Empty(PathBuf),
    /// The path is not a regular file.
    #[error("{} is not a file; name the model's file itself", .0.display())]
    NotAFile(PathBuf),
    /// The file changed during hashing.
    #[error("{} changed while it was read; wait until it is complete, then try again", .0.display())]
    Changed(PathBuf),
    /// The file is a broken GGUF.
    #[error("{} is a broken GGUF: {source}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The defect.
        source: GgufError,
    },
    /// The size of the largest piece is out of range.
    #[error("pieces of {0} bytes: the largest piece may be {min} to {max} bytes", min = PIECE_SIZES.start(), max = PIECE_SIZES.end())]
    PieceSize(u64),
    /// The file is one part of a split model, and its name does not say so.
    #[error(
        "{} is part {part} of {count} of a split model: its name must end with '{suffix}'. Rename it, or merge the parts.",
        path.display()
    )]
    SplitName {
        /// The file.
        path: PathBuf,
        /// The number of the part, from 1.
        part: u64,
        /// The number of parts.
        count: u64,
        /// The end of the name that llama.cpp expects.
        suffix: String,
    },
    /// The manifest has too many pieces.
    #[error("{0} pieces; at most {MAX_PIECES} are possible: choose a larger piece size")]
    TooManyPieces(usize),
    /// The manifest is too long.
    #[error(
        "the manifest would be {0} bytes long, more than {MAX_MANIFEST_BYTES}: split the model into several files"
    )]
    TooLong(u64),
    /// The bytes are not the JSON of a manifest.
    #[error("not a manifest: {0}")]
    Json(String),
    /// The manifest has another format.
    #[error(
        "the manifest's format is {0}, this program supports {FORMAT_VERSION}: update the older of the two"
    )]
    Version(u32),
    /// The parts contradict each other.
    #[error("the manifest contradicts itself: {0}")]
    Inconsistent(String),
}
