//! The wanted pieces of a pull, in the order in which they are needed.

use std::collections::HashSet;

use crate::disk::manifest::Manifest;
use crate::disk::store::Store;
use crate::net::pull::report::{Progress, PullError};

/// The wanted pieces of a pull.
pub(crate) struct Order {
    /// The wanted pieces that are missing; the urgent ones come first.
    pub(crate) pieces: Vec<u32>,
    /// The number of urgent pieces.
    pub(crate) urgent: u32,
    /// The progress at the beginning.
    pub(crate) progress: Progress,
}

impl Order {
    /// The order of `wanted`, or of all pieces.
    pub(crate) fn new(store: &Store, wanted: Option<Vec<u32>>, urgent: &[u32]) -> Result<Self, PullError> {
        let wanted = wanted_of(store.manifest(), wanted)?;
        let progress = first_progress(store, &wanted);
        let pieces = order_of(store, wanted, urgent);
        let count = pieces.iter().take_while(|piece| urgent.contains(piece)).count();
        Ok(Self { pieces, urgent: u32::try_from(count).unwrap_or(u32::MAX), progress })
    }
}

/// The pieces that are wanted, each once.
fn wanted_of(manifest: &Manifest, wanted: Option<Vec<u32>>) -> Result<Vec<u32>, PullError> {
    let pieces = manifest.pieces().len();
    let all = u32::try_from(pieces).unwrap_or(u32::MAX);
    let Some(mut wanted) = wanted else { return Ok((0..all).collect()) };
    wanted.sort_unstable();
    wanted.dedup();
    match wanted.last() {
        Some(&piece) if piece >= all => {
            Err(PullError::NoPiece { name: manifest.name().to_owned(), pieces, piece })
        }
        _ => Ok(wanted),
    }
}

/// Those of `wanted` that are missing: the urgent ones first, in their order.
fn order_of(store: &Store, wanted: Vec<u32>, urgent: &[u32]) -> Vec<u32> {
    let mut left: HashSet<u32> = wanted.iter().copied().filter(|piece| !store.has(*piece)).collect();
    urgent.iter().copied().chain(wanted).filter(|piece| left.remove(piece)).collect()
}

fn first_progress(store: &Store, wanted: &[u32]) -> Progress {
    let mut shown = Progress::default();
    for &piece in wanted {
        let length = store.manifest().pieces()[piece as usize].length;
        shown.bytes_wanted += length;
        shown.bytes_had += length.saturating_sub(store.bytes_missing(piece));
        shown.pieces_wanted += 1;
    }
    shown
}
