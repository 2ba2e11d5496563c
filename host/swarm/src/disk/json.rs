//! The JSON of a manifest. Equal manifests give equal bytes.

use serde::{Deserialize, Serialize};

use crate::disk::digest::Digest;
use crate::disk::facts::Facts;
use crate::disk::format::{Block, Content, FORMAT_VERSION, MAX_MANIFEST_BYTES, Piece};
use crate::disk::manifest_error::ManifestError;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestJson {
    version: u32,
    name: String,
    size: u64,
    largest_piece: u64,
    facts: Facts,
    pieces: Vec<PieceJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PieceJson {
    sha256: Digest,
    /// Length and digest of each block.
    blocks: Vec<(u32, Digest)>,
}

/// The version alone: other versions may have other fields.
#[derive(Deserialize)]
struct VersionJson {
    version: u32,
}

/// Reads the content of a manifest, and computes the offsets of its pieces. `check::check` checks the rest.
pub(crate) fn read(json: &[u8]) -> Result<Content, ManifestError> {
    if json.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(ManifestError::TooLong(json.len() as u64));
    }
    let VersionJson { version } = serde_json::from_slice(json).map_err(invalid_json)?;
    if version != FORMAT_VERSION {
        return Err(ManifestError::Version(version));
    }
    let mut manifest: ManifestJson = serde_json::from_slice(json).map_err(invalid_json)?;
    let mut offset = 0;
    let mut pieces = Vec::with_capacity(manifest.pieces.len());
    for piece in std::mem::take(&mut manifest.pieces) {
        let piece = piece.at_offset(offset);
        offset += piece.length;
        pieces.push(piece);
    }
    let ManifestJson { name, size, largest_piece, facts, .. } = manifest;
    Ok(Content { name, size, largest_piece, facts, pieces })
}

/// Writes the content of a manifest: the same bytes on every machine.
pub(crate) fn write(content: &Content) -> Vec<u8> {
    let manifest = ManifestJson {
        version: FORMAT_VERSION,
        name: content.name.clone(),
        size: content.size,
        largest_piece: content.largest_piece,
        facts: content.facts.clone(),
        pieces: content.pieces.iter().map(PieceJson::new).collect(),
    };
    // Serializing numbers, texts and lists cannot fail.
    serde_json::to_vec(&manifest).unwrap_or_default()
}

/// Bounds and sanitizes the error of serde, which may quote untrusted text of any length.
fn invalid_json(error: serde_json::Error) -> ManifestError {
    let message = error.to_string();
    ManifestError::Json(message.chars().filter(|c| !c.is_control()).take(300).collect())
}

impl PieceJson {
    fn new(piece: &Piece) -> Self {
        let blocks = piece.blocks.iter().map(|block| (block.length, block.digest)).collect();
        Self { sha256: piece.digest, blocks }
    }

    fn at_offset(self, offset: u64) -> Piece {
        let blocks: Vec<Block> =
            self.blocks.into_iter().map(|(length, digest)| Block { length, digest }).collect();
        // The sum cannot overflow: it is below 2^32 times the bytes of the JSON.
        let length = blocks.iter().map(|block| u64::from(block.length)).sum();
        Piece { offset, length, digest: self.sha256, blocks }
    }
}
