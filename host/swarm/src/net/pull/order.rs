//! The order in which a pull needs its pieces.

use std::collections::HashSet;

use crate::disk::manifest::Manifest;
use crate::disk::store::Store;
use crate::net::pull::report::{Progress, PullError};

/// The wanted pieces of a pull, in the order of need.
pub(crate) struct PieceOrder {
    /// The wanted pieces that are missing; the urgent ones come first.
    pub(crate) pieces: Vec<u32>,
    /// The number of urgent pieces.
    pub(crate) urgent_count: u32,
    /// The progress at the start of the pull.
    pub(crate) progress: Progress,
}

impl PieceOrder {
    /// The order of `wanted`, or of all pieces for `None`.
    pub(crate) fn new(store: &Store, wanted: Option<Vec<u32>>, urgent: &[u32]) -> Result<Self, PullError> {
        let wanted = check_wanted(store.manifest(), wanted)?;
        let progress = initial_progress(store, &wanted);
        let pieces = missing_in_order(store, wanted, urgent);
        let count = pieces.iter().take_while(|piece| urgent.contains(piece)).count();
        Ok(Self { pieces, urgent_count: u32::try_from(count).unwrap_or(u32::MAX), progress })
    }
}

/// The wanted pieces, sorted and without duplicates. Fails when the manifest lacks one.
fn check_wanted(manifest: &Manifest, wanted: Option<Vec<u32>>) -> Result<Vec<u32>, PullError> {
    let pieces = manifest.pieces().len();
    let piece_count = u32::try_from(pieces).unwrap_or(u32::MAX);
    let Some(mut wanted) = wanted else { return Ok((0..piece_count).collect()) };
    wanted.sort_unstable();
    wanted.dedup();
    match wanted.last() {
        Some(&piece) if piece >= piece_count => {
            Err(PullError::UnknownPiece { name: manifest.name().to_owned(), pieces, piece })
        }
        _ => Ok(wanted),
    }
}

/// The missing pieces of `wanted`: first the urgent ones in their given order, then the others.
fn missing_in_order(store: &Store, wanted: Vec<u32>, urgent: &[u32]) -> Vec<u32> {
    let mut missing: HashSet<u32> = wanted.iter().copied().filter(|piece| !store.has_piece(*piece)).collect();
    urgent.iter().copied().chain(wanted).filter(|piece| missing.remove(piece)).collect()
}

fn initial_progress(store: &Store, wanted: &[u32]) -> Progress {
    let mut progress = Progress::default();
    for &piece in wanted {
        let length = store.manifest().pieces()[piece as usize].length;
        progress.wanted_bytes += length;
        progress.have_bytes += length.saturating_sub(store.missing_bytes(piece));
        progress.wanted_pieces += 1;
    }
    progress
}
