//! References to models of a swarm.

use std::fmt;
use std::str::FromStr;

use crate::disk::digest::Digest;

/// Smallest number of digits of an abbreviated digest.
const MIN_DIGEST_DIGITS: usize = 8;

/// A reference to a model: `NAME`, `NAME@DIGEST` or `DIGEST`. After a name, the digest may be abbreviated to
/// its first eight digits or more. Only a full digest identifies the model without trust in the peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelRef {
    name: Option<String>,
    /// The first digits of the root, in lower case.
    digits: String,
}

/// The text is not a model reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' does not name a model: use NAME, NAME@DIGEST (at least {MIN_DIGEST_DIGITS} hexadecimal digits), or a full DIGEST"
)]
pub struct ModelRefError(String);

impl FromStr for ModelRef {
    type Err = ModelRefError;

    fn from_str(text: &str) -> Result<Self, ModelRefError> {
        let is_digest = |digits: &str| {
            (MIN_DIGEST_DIGITS..=64).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_hexdigit())
        };
        let (name, digits) = match text.split_once('@') {
            Some((name, digits)) if is_digest(digits) && !name.is_empty() => (Some(name), digits),
            None if text.len() == 64 && is_digest(text) => (None, text),
            None if !text.is_empty() => (Some(text), ""),
            _ => return Err(ModelRefError(text.to_owned())),
        };
        Ok(Self { name: name.map(str::to_owned), digits: digits.to_ascii_lowercase() })
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.digits.as_str()) {
            (Some(name), "") => f.write_str(name),
            (Some(name), digits) => write!(f, "{name}@{digits}"),
            (None, digits) => f.write_str(digits),
        }
    }
}

impl ModelRef {
    /// The full digest, if the reference has one.
    #[must_use]
    pub fn root(&self) -> Option<Digest> {
        self.digits.parse().ok()
    }

    /// Whether the reference has a digest, abbreviated or full.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        !self.digits.is_empty()
    }

    /// The name under which peers must list the model. `None` for a bare digest.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether the reference names the model with this name and root.
    #[must_use]
    pub fn matches(&self, name: &str, root: Digest) -> bool {
        self.name.as_deref().is_none_or(|required| required == name)
            && root.to_string().starts_with(&self.digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_ref_matches_name_digest_or_both() {
        let full = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
        let root: Digest = full.parse().unwrap();
        let parsed = |text: &str| text.parse::<ModelRef>().unwrap();
        assert!(parsed("smollm2").matches("smollm2", root) && !parsed("smollm2").matches("qwen", root));
        assert_eq!(parsed(full).root(), Some(root));
        assert!(parsed(full).matches("whatever", root));
        let both = parsed(&format!("smollm2@{}", &full[..8].to_uppercase()));
        assert!(both.root().is_none() && both.matches("smollm2", root) && !both.matches("other", root));
        assert!(!parsed("smollm2@00000000").matches("smollm2", root));
        for wrong in ["", "a@", "@b179c952", "a@b179", "a@xyzxyzxyz"] {
            assert!(wrong.parse::<ModelRef>().is_err(), "{wrong}");
        }
    }
}
