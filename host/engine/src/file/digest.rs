//! The digest of a model's weights.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

use crate::error::LoadError;
use crate::file::model_file::{ModelFile, Part, unreadable};

/// The scheme of the digest. Digests of different schemes are never equal.
const SCHEME: &[u8] = b"tightwad weights 2";
/// Bytes of a sample, at most.
const MAX_SAMPLE_BYTES: u64 = 4 << 10;
/// Bytes of all samples of a model, at most. Reading all of a large file would take longer than loading it.
const MAX_SAMPLED_BYTES: u64 = 16 << 20;
/// Samples of a tensor: its beginning, its middle and its end.
const SAMPLES_PER_TENSOR: u64 = 3;
/// Bytes that are hashed at once.
const CHUNK_BYTES: usize = 1 << 16;

/// SHA-256 over all headers, byte by byte, and over samples of each tensor.
///
/// # Errors
///
/// [`LoadError::Unreadable`] if a part cannot be read.
pub(crate) fn weights_digest(model: &ModelFile) -> Result<[u8; 32], LoadError> {
    let samples = SAMPLES_PER_TENSOR * model.tensors().count().max(1) as u64;
    let sample_bytes = (MAX_SAMPLED_BYTES / samples).clamp(1, MAX_SAMPLE_BYTES);
    let mut hash = Sha256::new();
    hash.update(SCHEME);
    for part in &model.parts {
        hash_part(part, sample_bytes, &mut hash).map_err(|error| unreadable(&part.path, &error))?;
    }
    Ok(hash.finalize().into())
}

fn hash_part(part: &Part, sample_bytes: u64, hash: &mut Sha256) -> std::io::Result<()> {
    let mut file = File::open(&part.path)?;
    let header_bytes = part.header.data_offset.min(part.bytes);
    hash.update(header_bytes.to_le_bytes());
    hash_range(&mut file, 0, header_bytes, hash)?;
    for tensor in &part.header.tensors {
        // The header was checked, so the size is known.
        let bytes = tensor.byte_count().unwrap_or(0);
        let start = part.header.data_offset + tensor.offset;
        if bytes <= SAMPLES_PER_TENSOR * sample_bytes {
            hash_range(&mut file, start, bytes, hash)?;
            continue;
        }
        for offset in [0, (bytes - sample_bytes) / 2, bytes - sample_bytes] {
            hash_range(&mut file, start + offset, sample_bytes, hash)?;
        }
    }
    Ok(())
}

fn hash_range(file: &mut File, start: u64, bytes: u64, hash: &mut Sha256) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    let mut range = file.take(bytes);
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        match range.read(&mut chunk)? {
            0 => return Ok(()),
            count => hash.update(&chunk[..count]),
        }
    }
}
