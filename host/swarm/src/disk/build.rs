//! Makes the content of a manifest from a file.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use crate::disk::at::was_changed;
use crate::disk::cut::{Cut, cut};
use crate::disk::facts::Facts;
use crate::disk::format::{BLOCK, Content, JSON, PIECES};
use crate::disk::gguf::Gguf;
use crate::disk::gguf_error::GgufError;
use crate::disk::manifest_error::ManifestError;
use crate::disk::{hash, name};

/// Reads and hashes all of the file, on all cores. Several threads call `progress` with the number of bytes
/// that they have hashed since their last call.
pub(crate) fn content(
    path: &Path,
    largest_piece: u64,
    name: Option<&str>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Content, ManifestError> {
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
    Ok(Content { name, size: before.len(), largest_piece, facts, pieces })
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
