//! Values of metadata keys.

use std::io::BufRead;

use sha2::{Digest as _, Sha256};

use crate::error::GgufError;
use crate::reader::BoundedReader;
use crate::text::{MAX_TEXT_BYTES, sanitize};

/// The maximum number of array elements that a header keeps: llama.cpp's maximum number of layers.
const MAX_KEPT_ELEMENTS: usize = 512;
/// The type number of a string. Source: `gguf_type` of ggml.
const STRING: u32 = 8;
/// The type number of an array.
const ARRAY: u32 = 9;
/// Greatest depth of arrays in arrays. llama.cpp supports no nested arrays.
const MAX_ARRAY_DEPTH: u32 = 2;

/// A metadata value, reduced to the parts that readers need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An integer that is not negative.
    Number(u64),
    /// A truth value.
    Flag(bool),
    /// A text.
    Text {
        /// Its first [`MAX_TEXT_BYTES`] bytes, without control characters.
        start: String,
        /// The SHA-256 of the complete text.
        sha256: [u8; 32],
    },
    /// An array.
    Array(Array),
    /// Any other value.
    Other,
}

/// An array, without its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// The type of the elements.
    pub element: ElementType,
    /// The number of elements.
    pub count: u64,
    /// The first elements, if they are integers; a negative element counts as 0.
    pub numbers: Vec<u64>,
}

/// The type of an array's elements, as far as readers tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// Texts.
    Text,
    /// Integers of 32 bits with a sign.
    Int32,
    /// Floating-point numbers of 32 bits.
    Float32,
    /// Another type, by its number.
    Other(u32),
}

impl ElementType {
    fn from_number(kind: u32) -> Self {
        match kind {
            STRING => Self::Text,
            5 => Self::Int32,
            6 => Self::Float32,
            other => Self::Other(other),
        }
    }
}

/// Reads the type and the value of `key`.
pub(crate) fn read(reader: &mut BoundedReader<impl BufRead>, key: &str) -> Result<Value, GgufError> {
    let kind = reader.u32()?;
    Ok(match kind {
        STRING => text(reader)?,
        ARRAY => Value::Array(array(reader, key, 0)?),
        7 => Value::Flag(reader.array::<1>()?[0] != 0),
        _ => match integer(reader, kind)? {
            Some(number) => u64::try_from(number).map_or(Value::Other, Value::Number),
            None => {
                reader.skip(width(kind, key)?)?;
                Value::Other
            }
        },
    })
}

/// Reads an integer; `None`: the type is not an integer's.
fn integer(reader: &mut BoundedReader<impl BufRead>, kind: u32) -> Result<Option<i128>, GgufError> {
    Ok(Some(match kind {
        0 => reader.array::<1>()?[0].into(),
        1 => i8::from_le_bytes(reader.array()?).into(),
        2 => u16::from_le_bytes(reader.array()?).into(),
        3 => i16::from_le_bytes(reader.array()?).into(),
        4 => reader.u32()?.into(),
        5 => i32::from_le_bytes(reader.array()?).into(),
        10 => reader.u64()?.into(),
        11 => i64::from_le_bytes(reader.array()?).into(),
        _ => return Ok(None),
    }))
}

fn text(reader: &mut BoundedReader<impl BufRead>) -> Result<Value, GgufError> {
    let count = reader.u64()?;
    let (mut start, mut hasher) = (Vec::new(), Sha256::new());
    reader.read_chunks(count, |bytes| {
        start.extend_from_slice(&bytes[..bytes.len().min(MAX_TEXT_BYTES - start.len())]);
        hasher.update(bytes);
    })?;
    Ok(Value::Text { start: sanitize(&start), sha256: hasher.finalize().into() })
}

fn array(reader: &mut BoundedReader<impl BufRead>, key: &str, depth: u32) -> Result<Array, GgufError> {
    let (kind, count) = (reader.u32()?, reader.u64()?);
    let mut numbers = Vec::new();
    match kind {
        STRING => {
            // Each string has at least its length.
            reader.require(count.saturating_mul(8))?;
            for _ in 0..count {
                let length = reader.u64()?;
                reader.skip(length)?;
            }
        }
        ARRAY if depth == MAX_ARRAY_DEPTH => return Err(GgufError::NestedTooDeep(key.to_owned())),
        ARRAY => {
            for _ in 0..count {
                array(reader, key, depth + 1)?;
            }
        }
        _ => {
            // A product above `u64::MAX` also exceeds the file.
            let bytes = count.saturating_mul(width(kind, key)?);
            reader.require(bytes)?;
            let mut skipped = count;
            while numbers.len() < MAX_KEPT_ELEMENTS && skipped > 0 {
                let Some(number) = integer(reader, kind)? else { break };
                numbers.push(u64::try_from(number).unwrap_or(0));
                skipped -= 1;
            }
            reader.skip(skipped * width(kind, key)?)?;
        }
    }
    Ok(Array { element: ElementType::from_number(kind), count, numbers })
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
