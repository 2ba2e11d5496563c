//! Numbers in messages. JSON has neither infinity nor NaN, and a number such as `1e118` is infinite as `f32`.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// The nearest number that JSON has. NaN becomes the smallest number.
fn written(value: f32) -> f32 {
    if value.is_nan() { f32::MIN } else { value.clamp(f32::MIN, f32::MAX) }
}

fn read<E: Error>(value: f32) -> Result<f32, E> {
    if value.is_finite() { Ok(value) } else { Err(E::custom("a number is too large")) }
}

pub(crate) fn serialize<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f32(written(*value))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    read(f32::deserialize(deserializer)?)
}

/// Tokens with numbers.
pub(crate) mod pairs {
    use super::{Deserialize, Deserializer, Serializer, read, written};

    pub(crate) fn serialize<S: Serializer>(values: &[(u32, f32)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|(token, value)| (token, written(*value))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(u32, f32)>, D::Error> {
        let values = Vec::<(u32, f32)>::deserialize(deserializer)?;
        values.into_iter().map(|(token, value)| Ok((token, read(value)?))).collect()
    }
}

/// Tokens with texts and numbers.
pub(crate) mod alternatives {
    use serde::Serialize;

    use super::{Deserialize, Deserializer, Serializer, read, written};

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        values: &[(u32, T, f32)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|(token, text, value)| (token, text, written(*value))))
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(u32, T, f32)>, D::Error> {
        let values = Vec::<(u32, T, f32)>::deserialize(deserializer)?;
        values.into_iter().map(|(token, text, value)| Ok((token, text, read(value)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::calls::{ProposeReply, WireLogprobs};

    #[test]
    fn infinite_numbers_are_refused_and_never_written() {
        let reply = r#"{"proposals": [[2, 6.5], [2, 1e118]], "elapsed_us": 5}"#;
        let error = serde_json::from_str::<ProposeReply>(reply).unwrap_err();
        assert!(error.to_string().contains("a number is too large"), "{error}");
        let logprobs = WireLogprobs {
            logprob: f32::NEG_INFINITY,
            top: vec![(1, "a".to_owned().into_bytes().into(), f32::NAN)],
        };
        let text = serde_json::to_string(&logprobs).unwrap();
        let read: WireLogprobs = serde_json::from_str(&text).unwrap();
        assert!(read.logprob == f32::MIN && read.top[0].2 == f32::MIN, "{text}");
    }
}
