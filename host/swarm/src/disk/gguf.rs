//! Reads the header of an untrusted GGUF (versions 2 and 3, little-endian).
//!
//! Invariant: memory and reading time are bounded for any header.

use std::io::BufRead;

use crate::disk::bounded_reader::BoundedReader;
use crate::disk::facts::{Facts, MAX_TEXT_BYTES, sanitize};
use crate::disk::gguf_error::{GgufError, MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_TENSORS};
use crate::disk::value;
use crate::disk::value::Value;

/// Greatest length of a header. The first piece holds the header, and no piece is longer.
pub(crate) const MAX_HEADER_BYTES: u64 = 1 << 30;

/// The parts of a header that a manifest needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gguf {
    pub(crate) facts: Facts,
    /// The offset of the first tensor. All bytes before it belong to the header.
    pub(crate) data_offset: u64,
    /// The tensors by offset. The tensors cover the file from `data_offset` to its end, without gaps.
    pub(crate) tensors: Vec<Tensor>,
}

/// The bytes of a tensor, and the padding after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Tensor {
    /// The layer `N` of a tensor with a name such as `blk.N.attn_q.weight`.
    pub(crate) fn layer(&self) -> Option<u32> {
        let (number, _) = self.name.strip_prefix("blk.")?.split_once('.')?;
        number.parse().ok()
    }
}

impl Gguf {
    /// Reads the header of a file of `size` bytes; `None`: the file is not a GGUF of a known version.
    pub(crate) fn read(from: impl BufRead, size: u64) -> Result<Option<Self>, GgufError> {
        let mut reader = BoundedReader::new(from, size, MAX_HEADER_BYTES);
        if size < 24 || reader.array()? != *b"GGUF" || !matches!(reader.u32()?, 2 | 3) {
            return Ok(None);
        }
        let (tensors, pairs) = (reader.u64()?, reader.u64()?);
        if tensors > MAX_TENSORS {
            return Err(GgufError::TooManyTensors(tensors));
        }
        let mut metadata = Metadata::default();
        for _ in 0..pairs {
            metadata.read_pair(&mut reader)?;
        }
        // The vector grows with the bytes that the file has, because `tensors` can be wrong.
        let mut offsets = Vec::new();
        for _ in 0..tensors {
            offsets.push(read_tensor(&mut reader)?);
        }
        let alignment = metadata.alignment()?;
        let data_offset = reader.position().next_multiple_of(alignment).min(size);
        let (data_offset, tensors) = place_tensors(offsets, data_offset, size)?;
        Ok(Some(Self { facts: metadata.into_facts(), data_offset, tensors }))
    }
}

/// The metadata keys that a manifest needs.
#[derive(Default)]
struct Metadata {
    facts: Facts,
    alignment: Option<u64>,
    /// `context_length` by architecture, because the file's architecture can come later.
    contexts: Vec<(String, u64)>,
}

impl Metadata {
    fn read_pair(&mut self, reader: &mut BoundedReader<impl BufRead>) -> Result<(), GgufError> {
        let key = sanitize(&reader.string(MAX_TEXT_BYTES)?);
        let value = value::read(reader, &key)?;
        match (key.as_str(), value) {
            ("general.architecture", Value::Text { start, .. }) => {
                self.facts.architecture = Some(sanitize(&start));
            }
            ("general.name", Value::Text { start, .. }) => self.facts.name = Some(sanitize(&start)),
            ("tokenizer.chat_template", Value::Text { digest, .. }) => {
                self.facts.chat_template = Some(digest);
            }
            ("general.file_type", Value::Number(number)) => {
                self.facts.file_type = u32::try_from(number).ok();
            }
            ("general.alignment", Value::Number(number)) => self.alignment = Some(number),
            (_, Value::Number(number)) if self.contexts.len() < 16 => {
                if let Some(architecture) = key.strip_suffix(".context_length") {
                    self.contexts.push((architecture.to_owned(), number));
                }
            }
            _ => (),
        }
        Ok(())
    }

    fn alignment(&self) -> Result<u64, GgufError> {
        let alignment = self.alignment.unwrap_or(32);
        if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT {
            Ok(alignment)
        } else {
            Err(GgufError::BadAlignment(alignment))
        }
    }

    fn into_facts(mut self) -> Facts {
        let context = self
            .contexts
            .iter()
            .find(|(architecture, _)| Some(architecture) == self.facts.architecture.as_ref());
        self.facts.context = context.map(|(_, tokens)| *tokens);
        self.facts
    }
}

/// A tensor's name, and its offset from the end of the header.
fn read_tensor(reader: &mut BoundedReader<impl BufRead>) -> Result<(String, u64), GgufError> {
    let name = sanitize(&reader.string(MAX_TEXT_BYTES)?);
    let dimensions = reader.u32()?;
    if dimensions > MAX_DIMENSIONS {
        return Err(GgufError::TooManyDimensions { name, dimensions });
    }
    // Skips the sizes and the type: the next tensor's offset gives this tensor's length.
    reader.skip(8 * u64::from(dimensions) + 4)?;
    Ok((name, reader.u64()?))
}

/// The tensors' positions in the file. Offsets in the header count from `data_offset`.
fn place_tensors(
    mut offsets: Vec<(String, u64)>,
    data_offset: u64,
    size: u64,
) -> Result<(u64, Vec<Tensor>), GgufError> {
    offsets.sort_by_key(|(_, offset)| *offset);
    let gap = offsets.first().map_or(0, |(_, offset)| *offset);
    if data_offset.saturating_add(gap) > MAX_HEADER_BYTES {
        return Err(GgufError::HeaderTooLong);
    }
    if let Some((name, _)) = offsets.iter().find(|(_, offset)| *offset > size - data_offset) {
        return Err(GgufError::TensorPastEnd(name.clone()));
    }
    let ends: Vec<u64> =
        offsets.iter().skip(1).map(|(_, offset)| data_offset + offset).chain([size]).collect();
    let tensors: Vec<Tensor> = offsets
        .into_iter()
        .zip(ends)
        .map(|((name, offset), end)| {
            let offset = data_offset + offset;
            Tensor { name, offset, bytes: end - offset }
        })
        .collect();
    Ok((tensors.first().map_or(size, |first| first.offset), tensors))
}

#[cfg(test)]
mod tests;
