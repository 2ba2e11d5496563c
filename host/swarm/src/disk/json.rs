//! The JSON of a manifest. It is written in one way only.

use serde::{Deserialize, Serialize};

use crate::disk::digest::Digest;
use crate::disk::facts::Facts;
use crate::disk::format::{Block, Content, FORMAT, JSON, Piece};
use crate::disk::manifest_error::ManifestError;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    name: String,
    size: u64,
    largest_piece: u64,
    facts: Facts,
    pieces: Vec<Part>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    sha256: Digest,
    /// Length and digest of each block.
    blocks: Vec<(u32, Digest)>,
}

/// Read before the rest, which may have another shape.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Reads the content of a manifest. The offsets of its pieces add up; nothing else is checked.
pub(crate) fn read(json: &[u8]) -> Result<Content, ManifestError> {
    if json.len() as u64 > JSON {
        return Err(ManifestError::TooLong(json.len() as u64));
    }
    let Version { version } = serde_json::from_slice(json).map_err(no_manifest)?;
    if version != FORMAT {
        return Err(ManifestError::Version(version));
    }
    let mut file: File = serde_json::from_slice(json).map_err(no_manifest)?;
    let mut offset = 0;
    let mut pieces = Vec::with_capacity(file.pieces.len());
    for part in std::mem::take(&mut file.pieces) {
        let piece = part.place(offset);
        offset += piece.length;
        pieces.push(piece);
    }
    let File { name, size, largest_piece, facts, .. } = file;
    Ok(Content { name, size, largest_piece, facts, pieces })
}

/// Writes the content of a manifest: the same bytes on every machine.
pub(crate) fn write(content: &Content) -> Vec<u8> {
    let file = File {
        version: FORMAT,
        name: content.name.clone(),
        size: content.size,
        largest_piece: content.largest_piece,
        facts: content.facts.clone(),
        pieces: content.pieces.iter().map(Part::of).collect(),
    };
    // Numbers, texts and lists cannot fail.
    serde_json::to_vec(&file).unwrap_or_default()
}

/// What serde says may quote what came, however long.
fn no_manifest(error: serde_json::Error) -> ManifestError {
    let said = error.to_string();
    ManifestError::Json(said.chars().filter(|c| !c.is_control()).take(300).collect())
}

impl Part {
    fn of(piece: &Piece) -> Self {
        let blocks = piece.blocks.iter().map(|block| (block.length, block.digest)).collect();
        Self { sha256: piece.digest, blocks }
    }

    fn place(self, offset: u64) -> Piece {
        let blocks: Vec<Block> =
            self.blocks.into_iter().map(|(length, digest)| Block { length, digest }).collect();
        // At most 2^32 times as many as the JSON has bytes: no overflow.
        let length = blocks.iter().map(|block| u64::from(block.length)).sum();
        Piece { offset, length, digest: self.sha256, blocks }
    }
}
