//! Numbers as clients write them: JSON has one type of numbers, so 16.0 is a whole number. For some fields, -1 stands for
//! the default.

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;

/// The greatest whole number below which each whole number is exact as `f64`.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A whole number. `None`: null.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    let Some(value) = value else { return Ok(None) };
    let exact = |number: f64| (number.fract() == 0.0 && number.abs() < MAX_EXACT).then_some(number as i64);
    match value.as_i64().or_else(|| value.as_f64().and_then(exact)) {
        Some(number) => Ok(Some(number)),
        None => Err(D::Error::custom(format!("expected a whole number, not {}", excerpt(&value)))),
    }
}

/// The start of the JSON of `value`.
fn excerpt(value: &Value) -> String {
    const MAX_CHARACTERS: usize = 40;
    value.to_string().chars().take(MAX_CHARACTERS).collect()
}

fn count_of<E: Error>(number: i64) -> Result<u32, E> {
    u32::try_from(number)
        .map_err(|_| E::custom(format!("expected a number from 0 to {}, not {number}", u32::MAX)))
}

/// A number from 0.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    whole(deserializer)?.map(count_of).transpose()
}

/// A number from 0. -1 stands for the default.
pub(crate) fn count_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    whole(deserializer)?.filter(|number| *number != -1).map(count_of).transpose()
}

/// A number of log-probabilities.
pub(crate) fn small_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let count = count(deserializer)?;
    // Greater numbers are out of range in any case.
    Ok(count.map(|count| u8::try_from(count).unwrap_or(u8::MAX)))
}

/// A seed. -1 stands for a random one.
pub(crate) fn seed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(whole(deserializer)?.filter(|seed| *seed != -1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_can_be_written_as_fractions() {
        assert_eq!(count(json!(16.0)).unwrap(), Some(16));
        assert_eq!(count(json!(null)).unwrap(), None);
        assert_eq!(count_or_default(json!(-1)).unwrap(), None);
        assert_eq!(count_or_default(json!(-1.0)).unwrap(), None);
        assert_eq!(seed(json!(-1)).unwrap(), None);
        assert_eq!(seed(json!(-7)).unwrap(), Some(-7));
        assert_eq!(seed(json!(i64::MAX)).unwrap(), Some(i64::MAX));
        assert_eq!(small_count(json!(300)).unwrap(), Some(u8::MAX));
    }

    #[test]
    fn other_numbers_are_named() {
        for (value, words) in [
            (json!(1.5), "a whole number, not 1.5"),
            (json!("2"), "a whole number, not \"2\""),
            (json!(-1), "from 0 to 4294967295, not -1"),
            (json!(1e300), "a whole number, not 1e+300"),
            (json!(u64::MAX), "a whole number, not 18446744073709551615"),
        ] {
            let error = count(value).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(count_or_default(json!(-5)).is_err());
    }
}
