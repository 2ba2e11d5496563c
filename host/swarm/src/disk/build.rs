//! Builds the content of a manifest from a file.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use tightwad_gguf::GgufError;

use crate::disk::facts::Facts;
use crate::disk::file_io::was_modified;
use crate::disk::format::{Content, MAX_BLOCK_SIZE, MAX_MANIFEST_BYTES, MAX_PIECES, PIECE_SIZES};
use crate::disk::gguf::{Gguf, Split};
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
    let Layout { facts, split, pieces: layouts } = lay_out(&file, path, before.len(), largest_piece)?;
    let name = model_name(path, name, &facts, split)?;
    let pieces = match hash::pieces(&file, &layouts, progress) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        pieces => Some(pieces.map_err(read_error)?),
    };
    let after = file.metadata().map_err(read_error)?;
    let pieces = pieces
        .filter(|_| !was_modified(&before, &after))
        .ok_or_else(|| ManifestError::Changed(path.to_owned()))?;
    Ok(Content { name, size: before.len(), largest_piece, facts, pieces })
}

/// The name in the manifest: `name`, the model's own, or the file's. The part of a split model keeps the end
/// of its file's name, because llama.cpp needs it.
fn model_name(
    path: &Path,
    name: Option<&str>,
    facts: &Facts,
    split: Option<Split>,
) -> Result<String, ManifestError> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(Split { part, count }) = split else {
        let name = name.map(str::to_owned).or_else(|| facts.model_name());
        return Ok(name::safe_name(&name.unwrap_or(stem)));
    };
    let (name, suffix) = (name::safe_name(name.unwrap_or(&stem)), format!("-{part:05}-of-{count:05}"));
    if name.ends_with(&suffix) {
        Ok(name)
    } else {
        Err(ManifestError::SplitName { path: path.to_owned(), part, count, suffix })
    }
}

/// The contents of a file's header that matter to its manifest.
struct Layout {
    facts: Facts,
    split: Option<Split>,
    pieces: Vec<PieceLayout>,
}

/// The facts in the file's header, and the layout of its pieces.
fn lay_out(file: &File, path: &Path, size: u64, largest_piece: u64) -> Result<Layout, ManifestError> {
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
    let pieces = piece_layouts(size, gguf.as_ref(), largest_piece);
    check_json_size(pieces.iter().map(|piece| piece.blocks.len() as u64).sum(), pieces.len() as u64)?;
    if pieces.len() > MAX_PIECES {
        return Err(ManifestError::TooManyPieces(pieces.len()));
    }
    let (facts, split) = gguf.map(|gguf| (gguf.facts, gguf.split)).unwrap_or_default();
    Ok(Layout { facts, split, pieces })
}

/// Fails when the manifest's JSON would exceed the size that readers accept.
fn check_json_size(blocks: u64, pieces: u64) -> Result<(), ManifestError> {
    // `[1048576,"DIGEST"],` per block, `{"sha256":"DIGEST","blocks":[]},` per piece, and room for the rest.
    let estimate = blocks.saturating_mul(77).saturating_add(pieces.saturating_mul(90)) + (1 << 14);
    if estimate > MAX_MANIFEST_BYTES { Err(ManifestError::TooLong(estimate)) } else { Ok(()) }
}
