//! Checks the content of a manifest from an untrusted source.

use crate::disk::format::{Content, MAX_BLOCK_SIZE, MAX_FILE_SIZE, MAX_PIECES, PIECE_SIZES, Piece};
use crate::disk::manifest_error::ManifestError;
use crate::disk::name;

/// Fails when the parts contradict each other or exceed a limit. The offsets of the pieces add up already.
pub(crate) fn check(content: &Content) -> Result<(), ManifestError> {
    let Content { name, size, largest_piece, facts, pieces } = content;
    let inconsistent = |reason: String| Err(ManifestError::Inconsistent(reason));
    if name::safe_name(name) != *name {
        return inconsistent(format!("{:?} is not a safe name", name.chars().take(100).collect::<String>()));
    }
    if !facts.are_sanitized() {
        return inconsistent("its facts are too long, or have control characters".to_owned());
    }
    if *size > MAX_FILE_SIZE {
        return inconsistent(format!("a file of {size} bytes; at most {MAX_FILE_SIZE} are possible"));
    }
    if !PIECE_SIZES.contains(largest_piece) {
        return inconsistent(ManifestError::PieceSize(*largest_piece).to_string());
    }
    if pieces.len() > MAX_PIECES {
        return inconsistent(ManifestError::TooManyPieces(pieces.len()).to_string());
    }
    for (index, piece) in pieces.iter().enumerate() {
        if let Err(error) = check_piece(piece, index, *largest_piece) {
            return inconsistent(format!("piece {index} {error}"));
        }
    }
    let sum: u64 = pieces.iter().map(|piece| piece.length).sum();
    if sum != *size || *size == 0 {
        return inconsistent(format!("a file of {size} bytes, but {sum} bytes of pieces"));
    }
    Ok(())
}

/// A defect of one piece.
#[derive(Debug, thiserror::Error)]
enum PieceError {
    #[error("has {length} bytes; at most {max} are possible")]
    TooLong { length: u64, max: u64 },
    #[error("has a block of {0} bytes; 1 to {MAX_BLOCK_SIZE} are possible")]
    BlockLength(u32),
    #[error("is empty")]
    Empty,
    #[error("is one block, but has another digest")]
    Digest,
}

fn check_piece(piece: &Piece, index: usize, largest_piece: u64) -> Result<(), PieceError> {
    // The header of a GGUF is one piece of any length.
    let max = if index == 0 { *PIECE_SIZES.end() } else { largest_piece };
    if piece.length > max {
        return Err(PieceError::TooLong { length: piece.length, max });
    }
    if let Some(block) = piece.blocks.iter().find(|block| !(1..=MAX_BLOCK_SIZE).contains(&block.length)) {
        return Err(PieceError::BlockLength(block.length));
    }
    match piece.blocks.as_slice() {
        [] => Err(PieceError::Empty),
        [only] if only.digest != piece.digest => Err(PieceError::Digest),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::digest::Digest;
    use crate::disk::facts::Facts;
    use crate::disk::format::Block;

    /// A hundred bytes of JSON per piece must not become megabytes of memory per peer.
    #[test]
    fn check_bounds_the_number_of_pieces() {
        let digest = Digest([7; 32]);
        let content = |count: usize| {
            let piece = |offset| {
                let blocks = vec![Block { length: 1, digest }];
                Piece { offset: offset as u64, length: 1, digest, blocks }
            };
            let (name, facts, pieces) = ("m".to_owned(), Facts::default(), (0..count).map(piece).collect());
            Content { name, size: count as u64, largest_piece: 4096, facts, pieces }
        };
        check(&content(100)).unwrap();
        let error = check(&content(MAX_PIECES + 1)).unwrap_err().to_string();
        assert!(error.contains("262145 pieces"), "{error}");
    }
}
