//! Builds the content of a manifest from a file.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use crate::disk::facts::Facts;
use crate::disk::file_io::was_modified;
use crate::disk::format::{Content, MAX_BLOCK_SIZE, MAX_MANIFEST_BYTES, PIECE_SIZES};
use crate::disk::gguf::Gguf;
use crate::disk::gguf_error::GgufError;
use crate::disk::layout::{PieceLayout, piece_layouts};
use crate::disk::manifest_error::ManifestError;
use crate::disk::{hash, name};

/// Reads and hashes the complete file, on all cores. Several threads call `progress` with the number of bytes
/// that they have hashed since their last call.
pub(crate) fn content(
    path: &Path,
    largest_piece: u64,
    name: Option<&str>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Content, ManifestError> {
    let read_error = |source| ManifestError::Read { path: path.to_owned(), source };
    if !PIECE_SIZES.contains(&largest_piece) {
        return Err(ManifestError::PieceSize(largest_piece));
    }
    let file = File::open(path).map_err(read_error)?;
    let before = file.metadata().map_err(read_error)?;
    if !before.is_file() {
        return Err(ManifestError::NotAFile(path.to_owned()));
    }
    let (facts, layouts) = lay_out(&file, path, before.len(), largest_piece)?;
    let pieces = match hash::pieces(&file, &layouts, progress) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        pieces => Some(pieces.map_err(read_error)?),
    };
    let after = file.metadata().map_err(read_error)?;
    let pieces = pieces
        .filter(|_| !was_modified(&before, &after))
        .ok_or_else(|| ManifestError::Changed(path.to_owned()))?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy());
    let name = name::safe_name(name.or(facts.name.as_deref()).or(stem.as_deref()).unwrap_or_default());
    Ok(Content { name, size: before.len(), largest_piece, facts, pieces })
}

/// The facts in the file's header, and the layout of its pieces.
fn lay_out(
    file: &File,
    path: &Path,
    size: u64,
    largest_piece: u64,
) -> Result<(Facts, Vec<PieceLayout>), ManifestError> {
    if size == 0 {
        return Err(ManifestError::Empty(path.to_owned()));
    }
    // A rough check before the layout is computed, and an exact one after it.
    check_json_size(size.div_ceil(u64::from(MAX_BLOCK_SIZE)), 1)?;
    let gguf = match Gguf::read(BufReader::with_capacity(1 << 16, file), size) {
        Ok(gguf) => gguf,
        Err(GgufError::Read(source)) => {
            return Err(ManifestError::Read { path: path.to_owned(), source });
        }
        Err(source) => return Err(ManifestError::Gguf { path: path.to_owned(), source }),
    };
    let layouts = piece_layouts(size, gguf.as_ref(), largest_piece);
    check_json_size(layouts.iter().map(|piece| piece.blocks.len() as u64).sum(), layouts.len() as u64)?;
    Ok((gguf.map(|gguf| gguf.facts).unwrap_or_default(), layouts))
}

/// Fails when the manifest's JSON would exceed the size that readers accept.
fn check_json_size(blocks: u64, pieces: u64) -> Result<(), ManifestError> {
    // `[1048576,"DIGEST"],` per block, `{"sha256":"DIGEST","blocks":[]},` per piece, and room for the rest.
    let estimate = blocks.saturating_mul(77).saturating_add(pieces.saturating_mul(90)) + (1 << 14);
    if estimate > MAX_MANIFEST_BYTES { Err(ManifestError::TooLong(estimate)) } else { Ok(()) }
}
