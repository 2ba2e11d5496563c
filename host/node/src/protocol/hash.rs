//! A hash of tokens, to find out whether two machines stand at the same place.

use serde::{Deserialize, Serialize};

/// A running hash of a list of tokens (FNV-1a, 64 bits): it tells an honest node that it stands
/// elsewhere; it is no protection against a dishonest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(u64);

impl Default for TokenHash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl TokenHash {
    /// The hash of `tokens`.
    #[must_use]
    pub fn of(tokens: &[u32]) -> Self {
        let mut hash = Self::default();
        hash.extend(tokens);
        hash
    }

    /// Goes on with `tokens`.
    pub fn extend(&mut self, tokens: &[u32]) {
        for byte in tokens.iter().flat_map(|token| token.to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl Serialize for TokenHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let hash = u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_goes_on_where_it_was() {
        let mut hash = TokenHash::of(&[1, 2]);
        hash.extend(&[3]);
        assert_eq!(hash, TokenHash::of(&[1, 2, 3]));
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<TokenHash>(&text).unwrap(), hash);
        assert_ne!(hash, TokenHash::of(&[1, 2, 4]));
    }
}
