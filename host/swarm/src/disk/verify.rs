//! Hashes blocks of a file again, and compares them with the manifest.

use std::fs::File;
use std::io;

use crate::disk::block_map::{BlockLocation, BlockMap};
use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::file_io;
use crate::disk::hash::parallel_map;
use crate::disk::manifest::Manifest;

/// Whether all blocks of the file match the manifest. Any thread may call `progress`, with the number of
/// bytes since its last call.
pub(crate) fn is_complete(
    file: &File,
    manifest: &Manifest,
    progress: &(dyn Fn(u64) + Sync),
) -> io::Result<bool> {
    if file.metadata()?.len() != manifest.size() {
        return Ok(false);
    }
    let map = BlockMap::new(manifest, false);
    let locations: Result<Vec<_>, StoreError> =
        (0..map.block_count()).map(|index| map.locate_index(manifest, index)).collect();
    let locations = locations.map_err(io::Error::other)?;
    Ok(are_intact(file, &locations, progress)?.into_iter().all(|intact| intact))
}

/// For each block, whether its bytes in the file have the block's digest. Reads on all cores.
pub(crate) fn are_intact(
    file: &File,
    blocks: &[BlockLocation],
    progress: &(dyn Fn(u64) + Sync),
) -> io::Result<Vec<bool>> {
    parallel_map(blocks, |buffer, block| {
        buffer.resize(block.length as usize, 0);
        let intact = match file_io::read_at(file, buffer, block.offset) {
            Ok(()) => Digest::of(buffer) == block.digest,
            // Another program truncated the file.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        progress(u64::from(block.length));
        Ok(intact)
    })
}
