//! Values of a GGUF's keys.

use std::io::BufRead;

use sha2::{Digest as _, Sha256};

use crate::disk::digest::Digest;
use crate::disk::facts::TEXT;
use crate::disk::gguf_error::GgufError;
use crate::disk::input::Input;

/// What of a value may matter.
pub(crate) enum Value {
    /// A whole number that is not negative.
    Number(u64),
    /// A text: how it begins, and the digest of all of it.
    Text {
        /// Its first bytes.
        start: Vec<u8>,
        /// Digest of all of it.
        digest: Digest,
    },
    /// Anything else.
    Other,
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;
/// How deep arrays may be in arrays; llama.cpp knows no such thing.
const DEEPEST: u32 = 2;

/// Reads the value of `key`, its type first.
pub(crate) fn read(input: &mut Input<impl BufRead>, key: &str) -> Result<Value, GgufError> {
    let kind = input.u32()?;
    Ok(match kind {
        STRING => text(input)?,
        ARRAY => {
            array(input, key, 0)?;
            Value::Other
        }
        0 => Value::Number(u64::from(input.array::<1>()?[0])),
        2 => Value::Number(u64::from(u16::from_le_bytes(input.array()?))),
        4 => Value::Number(u64::from(input.u32()?)),
        10 => Value::Number(input.u64()?),
        1 => signed(i8::from_le_bytes(input.array()?).into()),
        3 => signed(i16::from_le_bytes(input.array()?).into()),
        5 => signed(i32::from_le_bytes(input.array()?).into()),
        11 => signed(i64::from_le_bytes(input.array()?)),
        _ => {
            input.skip(width(kind, key)?)?;
            Value::Other
        }
    })
}

fn signed(number: i64) -> Value {
    u64::try_from(number).map_or(Value::Other, Value::Number)
}

fn text(input: &mut Input<impl BufRead>) -> Result<Value, GgufError> {
    let count = input.u64()?;
    let (mut start, mut hasher) = (Vec::new(), Sha256::new());
    input.feed(count, |bytes| {
        start.extend_from_slice(&bytes[..bytes.len().min(TEXT - start.len())]);
        hasher.update(bytes);
    })?;
    Ok(Value::Text { start, digest: Digest::finish(hasher) })
}

fn array(input: &mut Input<impl BufRead>, key: &str, depth: u32) -> Result<(), GgufError> {
    let (kind, count) = (input.u32()?, input.u64()?);
    match kind {
        STRING => {
            for _ in 0..count {
                let length = input.u64()?;
                input.skip(length)?;
            }
            Ok(())
        }
        ARRAY if depth == DEEPEST => Err(GgufError::Deep(key.to_owned())),
        ARRAY => (0..count).try_for_each(|_| array(input, key, depth + 1)),
        // More than fits a number is more than the file has.
        _ => input.skip(count.saturating_mul(width(kind, key)?)),
    }
}

/// Bytes of a value of fixed length.
fn width(kind: u32, key: &str) -> Result<u64, GgufError> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(GgufError::Kind { key: key.to_owned(), kind }),
    }
}
