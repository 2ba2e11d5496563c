//! Defects of a manifest, and of the file that it describes.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::disk::format::{FORMAT, JSON, PIECES};
use crate::disk::gguf_error::GgufError;

/// A manifest cannot be made, read or kept.
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
