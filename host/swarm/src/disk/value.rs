//! Values of a GGUF's metadata keys.

use std::io::BufRead;

use sha2::{Digest as _, Sha256};

use crate::disk::bounded_reader::BoundedReader;
use crate::disk::digest::Digest;
use crate::disk::facts::MAX_TEXT_BYTES;
use crate::disk::gguf_error::GgufError;

/// A metadata value, reduced to the parts that facts need.
pub(crate) enum Value {
    /// An integer that is not negative.
    Number(u64),
    /// A text.
    Text {
        /// Its first bytes, at most [`MAX_TEXT_BYTES`].
        start: Vec<u8>,
        /// The digest of the complete text.
        digest: Digest,
    },
    /// Any other value.
    Other,
}

/// The type number of a string. Source: `gguf_type` of ggml.
const STRING: u32 = 8;
/// The type number of an array.
const ARRAY: u32 = 9;
/// Greatest depth of arrays in arrays. llama.cpp supports no nested arrays.
const MAX_ARRAY_DEPTH: u32 = 2;

/// Reads the type and the value of `key`.
pub(crate) fn read(reader: &mut BoundedReader<impl BufRead>, key: &str) -> Result<Value, GgufError> {
    let kind = reader.u32()?;
    Ok(match kind {
        STRING => text(reader)?,
        ARRAY => {
            array(reader, key, 0)?;
            Value::Other
        }
        0 => Value::Number(u64::from(reader.array::<1>()?[0])),
        2 => Value::Number(u64::from(u16::from_le_bytes(reader.array()?))),
        4 => Value::Number(u64::from(reader.u32()?)),
        10 => Value::Number(reader.u64()?),
        1 => signed(i8::from_le_bytes(reader.array()?).into()),
        3 => signed(i16::from_le_bytes(reader.array()?).into()),
        5 => signed(i32::from_le_bytes(reader.array()?).into()),
        11 => signed(i64::from_le_bytes(reader.array()?)),
        _ => {
            reader.skip(width(kind, key)?)?;
            Value::Other
        }
    })
}

fn signed(number: i64) -> Value {
    u64::try_from(number).map_or(Value::Other, Value::Number)
}

fn text(reader: &mut BoundedReader<impl BufRead>) -> Result<Value, GgufError> {
    let count = reader.u64()?;
    let (mut start, mut hasher) = (Vec::new(), Sha256::new());
    reader.read_chunks(count, |bytes| {
        start.extend_from_slice(&bytes[..bytes.len().min(MAX_TEXT_BYTES - start.len())]);
        hasher.update(bytes);
    })?;
    Ok(Value::Text { start, digest: Digest::from_hasher(hasher) })
}

fn array(reader: &mut BoundedReader<impl BufRead>, key: &str, depth: u32) -> Result<(), GgufError> {
    let (kind, count) = (reader.u32()?, reader.u64()?);
    match kind {
        STRING => {
            for _ in 0..count {
                let length = reader.u64()?;
                reader.skip(length)?;
            }
            Ok(())
        }
        ARRAY if depth == MAX_ARRAY_DEPTH => Err(GgufError::NestedTooDeep(key.to_owned())),
        ARRAY => (0..count).try_for_each(|_| array(reader, key, depth + 1)),
        // A product above `u64::MAX` also exceeds the file.
        _ => reader.skip(count.saturating_mul(width(kind, key)?)),
    }
}

/// Bytes of a value of fixed size.
fn width(kind: u32, key: &str) -> Result<u64, GgufError> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(GgufError::UnknownType { key: key.to_owned(), kind }),
    }
}
