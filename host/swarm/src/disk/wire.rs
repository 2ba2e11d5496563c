//! Manifests as JSON: written in one way only, read with all checks.

use serde::{Deserialize, Serialize};

use crate::disk::digest::Digest;
use crate::disk::facts::Facts;
use crate::disk::manifest::{BLOCK, Block, FILE, FORMAT, Manifest, ManifestError, PIECES, Piece};
use crate::disk::name;

/// Longest JSON of a manifest, in bytes.
pub(crate) const JSON: u64 = 64 << 20;

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

impl Manifest {
    /// Reads a manifest that anybody may have written.
    ///
    /// # Errors
    ///
    /// When it is not one, too large, of another format, or contradicts itself.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        if json.len() as u64 > JSON {
            return Err(ManifestError::TooLong(json.len() as u64));
        }
        let Version { version } = serde_json::from_slice(json).map_err(no_manifest)?;
        if version != FORMAT {
            return Err(ManifestError::Version(version));
        }
        let file: File = serde_json::from_slice(json).map_err(no_manifest)?;
        let mut offset = 0;
        let mut pieces = Vec::with_capacity(file.pieces.len());
        for part in file.pieces {
            let piece = part.place(offset);
            offset += piece.length;
            pieces.push(piece);
        }
        Self::checked(file.name, file.size, file.largest_piece, file.facts, pieces)
    }

    /// As JSON: the same bytes on every machine.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let pieces = self.pieces.iter().map(Part::of).collect();
        let file = File {
            version: FORMAT,
            name: self.name.clone(),
            size: self.size,
            largest_piece: self.largest_piece,
            facts: self.facts.clone(),
            pieces,
        };
        // Numbers, texts and lists cannot fail.
        serde_json::to_vec(&file).unwrap_or_default()
    }

    /// Of parts that may be anything, but for the pieces' offsets and lengths, which add up.
    pub(crate) fn checked(
        name: String,
        size: u64,
        largest_piece: u64,
        facts: Facts,
        pieces: Vec<Piece>,
    ) -> Result<Self, ManifestError> {
        let wrong = |what: String| Err(ManifestError::Inconsistent(what));
        if name::safe(&name) != name {
            return wrong(format!("{:?} is no safe name", name.chars().take(100).collect::<String>()));
        }
        if !facts.are_clean() {
            return wrong("its facts are too long, or have control characters".to_owned());
        }
        if size > FILE {
            return wrong(format!("a file of {size} bytes; at most {FILE} are possible"));
        }
        if !PIECES.contains(&largest_piece) {
            return wrong(ManifestError::PieceSize(largest_piece).to_string());
        }
        for (index, piece) in pieces.iter().enumerate() {
            if let Err(what) = check(piece, index, largest_piece) {
                return wrong(format!("piece {index} {what}"));
            }
        }
        let sum: u64 = pieces.iter().map(|piece| piece.length).sum();
        if sum != size || size == 0 {
            return wrong(format!("a file of {size} bytes, but {sum} bytes of pieces"));
        }
        Ok(Self::of_checked(name, size, largest_piece, facts, pieces))
    }
}

/// What serde says may quote what came, however long.
fn no_manifest(error: serde_json::Error) -> ManifestError {
    let said = error.to_string();
    ManifestError::Json(said.chars().filter(|c| !c.is_control()).take(300).collect())
}

fn check(piece: &Piece, index: usize, largest_piece: u64) -> Result<(), String> {
    // The header of a GGUF is one piece, whatever its length.
    let most = if index == 0 { *PIECES.end() } else { largest_piece };
    if piece.length > most {
        return Err(format!("has {} bytes; at most {most} are possible", piece.length));
    }
    if let Some(block) = piece.blocks.iter().find(|block| !(1..=BLOCK).contains(&block.length)) {
        return Err(format!("has a block of {} bytes; 1 to {BLOCK} are possible", block.length));
    }
    match piece.blocks.as_slice() {
        [] => Err("is empty".to_owned()),
        [only] if only.digest != piece.digest => Err("is one block, but has another digest".to_owned()),
        _ => Ok(()),
    }
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
