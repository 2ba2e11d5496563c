//! How a model of a swarm is named.

use std::fmt;
use std::str::FromStr;

use crate::disk::digest::Digest;

/// Fewest digits of a digest that is not written out.
const DIGITS: usize = 8;

/// A model: `NAME`, `NAME@DIGEST` or `DIGEST`. The digest may be cut to its first eight digits or more; only a
/// whole one pins the model whatever peers say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    name: Option<String>,
    /// The beginning of the root, in small hexadecimal digits.
    digits: String,
}

/// Why a text names no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' names no model: it is NAME, NAME@DIGEST or DIGEST, of at least {DIGITS} hexadecimal digits")]
pub struct WantedError(String);

impl FromStr for Wanted {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Self, WantedError> {
        let is_digest = |digits: &str| {
            (DIGITS..=64).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_hexdigit())
        };
        let (name, digits) = match text.split_once('@') {
            Some((name, digits)) if is_digest(digits) && !name.is_empty() => (Some(name), digits),
            None if text.len() == 64 && is_digest(text) => (None, text),
            None if !text.is_empty() => (Some(text), ""),
            _ => return Err(WantedError(text.to_owned())),
        };
        Ok(Self { name: name.map(str::to_owned), digits: digits.to_ascii_lowercase() })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.digits.as_str()) {
            (Some(name), "") => f.write_str(name),
            (Some(name), digits) => write!(f, "{name}@{digits}"),
            (None, digits) => f.write_str(digits),
        }
    }
}

impl Wanted {
    /// The digest, where it is written out.
    #[must_use]
    pub fn root(&self) -> Option<Digest> {
        self.digits.parse().ok()
    }

    /// True where a digest, cut or not, says which model it is.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        !self.digits.is_empty()
    }

    /// The name that peers must have for it; `None` where the digest says enough.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether it is this model.
    #[must_use]
    pub fn fits(&self, name: &str, root: Digest) -> bool {
        self.name.as_deref().is_none_or(|own| own == name) && root.to_string().starts_with(&self.digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_by_its_name_its_digest_or_both() {
        let full = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
        let root: Digest = full.parse().unwrap();
        let wanted = |text: &str| text.parse::<Wanted>().unwrap();
        assert!(wanted("smollm2").fits("smollm2", root) && !wanted("smollm2").fits("qwen", root));
        assert_eq!(wanted(full).root(), Some(root));
        assert!(wanted(full).fits("whatever", root));
        let both = wanted(&format!("smollm2@{}", &full[..8].to_uppercase()));
        assert!(both.root().is_none() && both.fits("smollm2", root) && !both.fits("other", root));
        assert!(!wanted("smollm2@00000000").fits("smollm2", root));
        for wrong in ["", "a@", "@b179c952", "a@b179", "a@xyzxyzxyz"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }
}
