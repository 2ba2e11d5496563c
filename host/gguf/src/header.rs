//! The header of a file.

use std::collections::{HashMap, HashSet};
use std::io::BufRead;

use crate::error::{GgufError, MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_KEYS, MAX_TENSORS};
use crate::reader::BoundedReader;
use crate::tensor::{TensorInfo, TensorType};
use crate::text::{MAX_TEXT_BYTES, sanitize};
use crate::value::{self, Array, Value};

/// Greatest length of a header.
pub const MAX_HEADER_BYTES: u64 = 1 << 30;
/// The smallest file: signature, version and two counts.
const MIN_FILE_BYTES: u64 = 24;

/// A header: metadata and the descriptions of all tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    metadata: HashMap<String, Value>,
    /// A key that occurs more than once.
    duplicate_key: Option<String>,
    /// The tensors, in the order of the header.
    pub tensors: Vec<TensorInfo>,
    /// The alignment of tensors, in bytes.
    pub alignment: u64,
    /// The offset of the tensor data: the length of the header, with padding.
    pub data_offset: u64,
}

impl Header {
    /// Reads the header of a file of `size` bytes; `None`: the file is not a GGUF of a known version.
    ///
    /// # Errors
    ///
    /// Returns [`GgufError`] if the header cannot be parsed.
    pub fn read(from: impl BufRead, size: u64) -> Result<Option<Self>, GgufError> {
        let mut reader = BoundedReader::new(from, size, MAX_HEADER_BYTES);
        if size < MIN_FILE_BYTES || reader.array()? != *b"GGUF" || !matches!(reader.u32()?, 2 | 3) {
            return Ok(None);
        }
        let (tensor_count, key_count) = (reader.u64()?, reader.u64()?);
        if tensor_count > MAX_TENSORS {
            return Err(GgufError::TooManyTensors(tensor_count));
        }
        if key_count > MAX_KEYS {
            return Err(GgufError::TooManyKeys(key_count));
        }
        let (mut metadata, mut duplicate_key) = (HashMap::new(), None);
        for _ in 0..key_count {
            let key = sanitize(&reader.string(MAX_TEXT_BYTES)?);
            let value = value::read(&mut reader, &key)?;
            if metadata.insert(key.clone(), value).is_some() {
                duplicate_key = Some(key);
            }
        }
        // The vector grows with the bytes that the file has, because the count can be wrong.
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(read_tensor(&mut reader)?);
        }
        let mut header = Self { metadata, duplicate_key, tensors, alignment: 0, data_offset: 0 };
        header.alignment = header.number("general.alignment").unwrap_or(32);
        if !header.alignment.is_power_of_two() || header.alignment > MAX_ALIGNMENT {
            return Err(GgufError::BadAlignment(header.alignment));
        }
        header.data_offset = reader.position().next_multiple_of(header.alignment);
        Ok(Some(header))
    }

    /// The value of `key`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The text of `key`, cut to [`MAX_TEXT_BYTES`] bytes.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::Text { start, .. } => Some(start),
            _ => None,
        }
    }

    /// The number of `key`, if it is an integer that is not negative.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.value(key)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The array of `key`.
    #[must_use]
    pub fn array(&self, key: &str) -> Option<&Array> {
        match self.value(key)? {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    /// The length that a file with this header has, without the padding at its end.
    ///
    /// # Errors
    ///
    /// Returns [`GgufError`] if a name occurs twice, or if the tensors do not follow each other, each with a known type
    /// and possible sizes.
    pub fn file_length(&self) -> Result<u64, GgufError> {
        if let Some(key) = &self.duplicate_key {
            return Err(GgufError::Duplicate(key.clone()));
        }
        let (mut names, mut expected, mut end) = (HashSet::new(), 0_u64, 0_u64);
        for tensor in &self.tensors {
            if !names.insert(&tensor.name) {
                return Err(GgufError::Duplicate(tensor.name.clone()));
            }
            if tensor.offset != expected {
                let (name, offset) = (tensor.name.clone(), tensor.offset);
                return Err(GgufError::BadOffset { name, offset, expected });
            }
            let bad_shape = || GgufError::BadShape { name: tensor.name.clone(), sizes: tensor.sizes.clone() };
            end = expected.checked_add(tensor.byte_count()?).ok_or_else(bad_shape)?;
            expected = end.checked_next_multiple_of(self.alignment).ok_or_else(bad_shape)?;
        }
        Ok(self.data_offset.saturating_add(end))
    }
}

fn read_tensor(reader: &mut BoundedReader<impl BufRead>) -> Result<TensorInfo, GgufError> {
    let name = sanitize(&reader.string(MAX_TEXT_BYTES)?);
    let dimensions = reader.u32()?;
    if dimensions > MAX_DIMENSIONS {
        return Err(GgufError::TooManyDimensions { name, dimensions });
    }
    let sizes = (0..dimensions).map(|_| reader.u64()).collect::<Result<_, _>>()?;
    Ok(TensorInfo { name, sizes, kind: TensorType(reader.u32()?), offset: reader.u64()? })
}

#[cfg(test)]
mod tests;
