//! New keys, and the hash of a key.

use sha2::{Digest, Sha256};
use tightwad_core::{KeyHash, KeyName, random_hex};

/// The beginning of each key, by which people and secret scanners recognize it.
const KEY_PREFIX: &str = "tw-";
/// The random bytes of a key.
const KEY_BYTES: usize = 32;

/// A new key. Only its hash is kept anywhere.
pub struct NewKey {
    secret: String,
}

impl NewKey {
    /// A random key.
    #[must_use]
    pub fn generate() -> Self {
        Self { secret: format!("{KEY_PREFIX}{}", random_hex::<KEY_BYTES>()) }
    }

    /// The key, which a client sends.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The line for `keys` in `tw.serve`.
    #[must_use]
    pub fn script_line(&self, name: &KeyName) -> String {
        // Brackets allow names that are not identifiers of Lua.
        format!("[\"{name}\"] = {{ hash = \"{}\", rights = {{ \"chat\" }} }},", hash(self.secret.as_bytes()))
    }
}

/// The hash of a key.
pub(crate) fn hash(secret: &[u8]) -> KeyHash {
    KeyHash::new(Sha256::digest(secret).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_key_is_long_and_unique() {
        let (one, other) = (NewKey::generate(), NewKey::generate());
        assert_ne!(one.secret(), other.secret());
        let digits = one.secret().strip_prefix("tw-").unwrap();
        assert_eq!(digits.len(), 64);
        assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn script_line_has_hash_instead_of_key() {
        let key = NewKey { secret: "abc".to_owned() };
        let line = key.script_line(&"team-1".parse().unwrap());
        // The example of FIPS 180.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(
            line,
            format!("[\"team-1\"] = {{ hash = \"sha256:{digest}\", rights = {{ \"chat\" }} }},")
        );
    }
}
