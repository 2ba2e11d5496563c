//! A checksum in every message, because TCP's own is weak and a digit changed on the way is still a
//! number: a JSON object carries, as its last field, the CRC-32 of the text before it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// `"sum":"01234567"}`.
const TAIL: usize = 17;

/// A message that is not what was sent.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Broken {
    /// The checksum is missing.
    #[error("it ends without its checksum")]
    Cut,
    /// The checksum is of another text.
    #[error("its checksum does not fit: it was changed on the way")]
    Changed,
    /// It is no message of this kind.
    #[error("it is not understood: {0}")]
    Other(String),
}

/// `message` as JSON with its checksum.
///
/// # Errors
///
/// What serde says of a message that is no JSON object.
pub(crate) fn seal(message: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = serde_json::to_vec(message)?;
    // The closing brace.
    text.pop();
    if text.len() > 1 {
        text.push(b',');
    }
    let sum = crc32fast::hash(&text);
    text.extend_from_slice(format!("\"sum\":\"{sum:08x}\"}}").as_bytes());
    Ok(text)
}

/// The message that was sealed. Without `required`, one that has no checksum at all, written by hand,
/// is read too.
///
/// # Errors
///
/// [`Broken`] says what happened to it.
pub(crate) fn unseal<T: DeserializeOwned>(text: &[u8], required: bool) -> Result<T, Broken> {
    let text = text.trim_ascii();
    let tail = text.len().checked_sub(TAIL).map(|start| text.split_at(start));
    match tail {
        Some((before, tail)) if tail.starts_with(b"\"sum\":\"") => {
            let sum =
                std::str::from_utf8(&tail[7..15]).ok().and_then(|sum| u32::from_str_radix(sum, 16).ok());
            if sum != Some(crc32fast::hash(before)) {
                return Err(Broken::Changed);
            }
        }
        _ if required => return Err(Broken::Cut),
        _ => {}
    }
    serde_json::from_slice(text).map_err(|error| Broken::Other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::calls::{Tokenized, VerifyCall};

    #[test]
    fn what_was_sealed_comes_back_and_any_change_is_noticed() {
        let message = Tokenized { tokens: vec![1, 22, 333], text: String::new(), max_tokens: 0 };
        let text = seal(&message).unwrap();
        assert_eq!(unseal::<Tokenized>(&text, true).unwrap(), message);
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert!(unseal::<Tokenized>(&changed, true).is_err(), "a change at {at}");
            assert!(unseal::<Tokenized>(&text[..at], true).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn by_hand_the_sum_may_be_missing() {
        let call = br#"{"at": 1, "hash": "00", "draft": [5]}"#;
        assert!(unseal::<VerifyCall>(call, false).is_ok());
        assert!(matches!(unseal::<VerifyCall>(call, true), Err(Broken::Cut)));
    }
}
