//! JSON messages with a checksum: the last field of each object is the CRC-32 of the text before it. TCP's
//! checksum is weak, and a changed digit is still a valid number.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Length of `"crc32":"01234567"}` in bytes.
const CHECKSUM_BYTES: usize = 19;

/// The reason why a message is not valid.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum MessageError {
    /// The checksum is missing.
    #[error("the checksum is missing: the message was cut")]
    ChecksumMissing,
    /// The checksum does not match the text.
    #[error("the checksum does not match: the message was changed on the network")]
    ChecksumMismatch,
    /// The JSON is not a message of the expected type.
    #[error("the message is not valid: {0}")]
    Invalid(String),
}

/// Serializes `message` as JSON with a checksum.
///
/// # Errors
///
/// The error of serde if `message` is not a JSON object.
pub(crate) fn to_checked_json(message: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = serde_json::to_vec(message)?;
    // The checksum goes before the closing brace.
    text.pop();
    if text.len() > 1 {
        text.push(b',');
    }
    let crc32 = crc32fast::hash(&text);
    text.extend_from_slice(format!("\"crc32\":\"{crc32:08x}\"}}").as_bytes());
    Ok(text)
}

/// Parses a message and verifies its checksum. Unless `required`, a message without a checksum, such as one
/// written by hand, is valid too.
///
/// # Errors
///
/// [`MessageError`] if the checksum is missing or wrong, or the JSON does not fit.
pub(crate) fn from_checked_json<T: DeserializeOwned>(text: &[u8], required: bool) -> Result<T, MessageError> {
    let text = text.trim_ascii();
    let tail = text.len().checked_sub(CHECKSUM_BYTES).map(|start| text.split_at(start));
    match tail {
        Some((before, tail)) if tail.starts_with(b"\"crc32\":\"") => {
            let crc32 =
                std::str::from_utf8(&tail[9..17]).ok().and_then(|crc32| u32::from_str_radix(crc32, 16).ok());
            if crc32 != Some(crc32fast::hash(before)) {
                return Err(MessageError::ChecksumMismatch);
            }
        }
        _ if required => return Err(MessageError::ChecksumMissing),
        _ => {}
    }
    serde_json::from_slice(text).map_err(|error| MessageError::Invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::calls::{TokenizeReply, VerifyCall};

    #[test]
    fn checked_json_round_trips_and_detects_any_change() {
        let message = TokenizeReply { tokens: vec![1, 22, 333], text: String::new(), max_tokens: 0 };
        let text = to_checked_json(&message).unwrap();
        assert_eq!(from_checked_json::<TokenizeReply>(&text, true).unwrap(), message);
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert!(from_checked_json::<TokenizeReply>(&changed, true).is_err(), "a change at {at}");
            assert!(from_checked_json::<TokenizeReply>(&text[..at], true).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn checksum_is_optional_in_calls() {
        let call = br#"{"at": 1, "hash": "00", "draft": [5]}"#;
        assert!(from_checked_json::<VerifyCall>(call, false).is_ok());
        assert!(matches!(from_checked_json::<VerifyCall>(call, true), Err(MessageError::ChecksumMissing)));
    }
}
