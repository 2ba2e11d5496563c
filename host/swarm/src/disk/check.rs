//! Checks of a manifest's content, which may come from anybody.

use crate::disk::format::{BLOCK, Content, FILE, PIECES, Piece};
use crate::disk::manifest_error::ManifestError;
use crate::disk::name;

/// Fails when the parts contradict each other. The offsets of the pieces add up already.
pub(crate) fn check(content: &Content) -> Result<(), ManifestError> {
    let Content { name, size, largest_piece, facts, pieces } = content;
    let wrong = |what: String| Err(ManifestError::Inconsistent(what));
    if name::safe(name) != *name {
        return wrong(format!("{:?} is not a safe name", name.chars().take(100).collect::<String>()));
    }
    if !facts.are_clean() {
        return wrong("its facts are too long, or have control characters".to_owned());
    }
    if *size > FILE {
        return wrong(format!("a file of {size} bytes; at most {FILE} are possible"));
    }
    if !PIECES.contains(largest_piece) {
        return wrong(ManifestError::PieceSize(*largest_piece).to_string());
    }
    for (index, piece) in pieces.iter().enumerate() {
        if let Err(what) = check_piece(piece, index, *largest_piece) {
            return wrong(format!("piece {index} {what}"));
        }
    }
    let sum: u64 = pieces.iter().map(|piece| piece.length).sum();
    if sum != *size || *size == 0 {
        return wrong(format!("a file of {size} bytes, but {sum} bytes of pieces"));
    }
    Ok(())
}

/// What is wrong with a piece.
#[derive(Debug, thiserror::Error)]
enum PieceError {
    #[error("has {length} bytes; at most {most} are possible")]
    TooLong { length: u64, most: u64 },
    #[error("has a block of {0} bytes; 1 to {BLOCK} are possible")]
    BlockLength(u32),
    #[error("is empty")]
    Empty,
    #[error("is one block, but has another digest")]
    Digest,
}

fn check_piece(piece: &Piece, index: usize, largest_piece: u64) -> Result<(), PieceError> {
    // The header of a GGUF is one piece, whatever its length.
    let most = if index == 0 { *PIECES.end() } else { largest_piece };
    if piece.length > most {
        return Err(PieceError::TooLong { length: piece.length, most });
    }
    if let Some(block) = piece.blocks.iter().find(|block| !(1..=BLOCK).contains(&block.length)) {
        return Err(PieceError::BlockLength(block.length));
    }
    match piece.blocks.as_slice() {
        [] => Err(PieceError::Empty),
        [only] if only.digest != piece.digest => Err(PieceError::Digest),
        _ => Ok(()),
    }
}
