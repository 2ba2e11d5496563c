//! A hash of tokens, to compare the positions of two machines.

use serde::{Deserialize, Serialize};

/// A running hash of a list of tokens (FNV-1a, 64 bits). The hash detects that two machines have different
/// tokens. The hash does not protect against a dishonest node.
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
    pub fn new(tokens: &[u32]) -> Self {
        let mut hash = Self::default();
        hash.extend(tokens);
        hash
    }

    /// Adds `tokens` to the hash.
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
    fn extended_hash_equals_the_hash_of_all_tokens() {
        let mut hash = TokenHash::new(&[1, 2]);
        hash.extend(&[3]);
        assert_eq!(hash, TokenHash::new(&[1, 2, 3]));
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<TokenHash>(&text).unwrap(), hash);
        assert_ne!(hash, TokenHash::new(&[1, 2, 4]));
    }
}
