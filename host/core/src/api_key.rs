//! API keys: named credentials of a server's clients, with rights and limits.

use std::collections::BTreeSet;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;
use std::sync::Arc;

use time::{Date, Month};

use crate::digest::{parse_digest, to_hex};
use crate::token::Token;

/// The maximum length of a key's name, in characters.
const MAX_NAME_CHARACTERS: usize = 64;
/// The algorithm of hashes in scripts.
const HASH_PREFIX: &str = "sha256:";

/// A group of paths that a key may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Generating text, and listing the models of the key.
    Chat,
    /// Loading and unloading models.
    Manage,
    /// The status and the metrics of the host, which show the requests of all clients.
    Observe,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 3] = [Self::Chat, Self::Manage, Self::Observe];

    /// The name in scripts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Manage => "manage",
            Self::Observe => "observe",
        }
    }
}

/// The name of a key. The name appears in logs, status and metrics, so it has few characters and no blanks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(Arc<str>);

/// The text cannot be the name of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a key has 1 to {MAX_NAME_CHARACTERS} letters, digits, '-', '_' or '.'")]
pub struct InvalidKeyName;

impl KeyName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = InvalidKeyName;

    fn from_str(text: &str) -> Result<Self, InvalidKeyName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let valid = (1..=MAX_NAME_CHARACTERS).contains(&text.len()) && text.bytes().all(allowed);
        if valid { Ok(Self(text.into())) } else { Err(InvalidKeyName) }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The SHA-256 of a key. A key has 256 random bits, so its hash does not reveal it. A slow hash would only delay the
/// requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// The text is not a hash. The message does not contain the text, because it can be the key itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected \"sha256:\" and 64 hexadecimal digits, as `tightwad key new` prints them")]
pub struct InvalidKeyHash;

impl KeyHash {
    /// The hash with the bytes `digest`.
    #[must_use]
    pub fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The first 16 hexadecimal digits: enough to tell keys apart.
    #[must_use]
    pub fn short(&self) -> String {
        to_hex(&self.0[..8])
    }
}

impl FromStr for KeyHash {
    type Err = InvalidKeyHash;

    fn from_str(text: &str) -> Result<Self, InvalidKeyHash> {
        text.strip_prefix(HASH_PREFIX).and_then(parse_digest).map(Self).ok_or(InvalidKeyHash)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{HASH_PREFIX}{}", to_hex(&self.0))
    }
}

/// Shows the beginning only: somebody may have hashed a password.
impl fmt::Debug for KeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyHash({}...)", self.short())
    }
}

/// A key: its hash, its rights and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpec {
    /// The name in logs, status and metrics.
    pub name: KeyName,
    /// The hash of the secret.
    pub hash: KeyHash,
    /// The rights.
    pub rights: BTreeSet<Right>,
    /// The models that the key may use; `None`: all models.
    pub models: Option<BTreeSet<String>>,
    /// The maximum of generating requests per minute; `None`: no limit.
    pub requests_per_minute: Option<NonZeroU32>,
    /// The maximum of prompt and completion tokens per day, UTC; `None`: no limit.
    pub tokens_per_day: Option<NonZeroU64>,
    /// The last day of the key, UTC; `None`: the key does not expire.
    pub expires: Option<Date>,
}

/// The credentials that a server accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The token, which has all rights.
    pub token: Option<Token>,
    /// The keys. Their names and hashes are unique.
    pub keys: Vec<KeySpec>,
}

impl Credentials {
    /// True if the server accepts every client: it has neither a token nor keys.
    #[must_use]
    pub fn accepts_everyone(&self) -> bool {
        self.token.is_none() && self.keys.is_empty()
    }
}

impl From<Option<Token>> for Credentials {
    fn from(token: Option<Token>) -> Self {
        Self { token, keys: Vec::new() }
    }
}

/// Parses a date of the form 2027-01-31; `None` for other texts and for days that do not exist.
#[must_use]
pub fn parse_date(text: &str) -> Option<Date> {
    let digits = |range: std::ops::Range<usize>| {
        let part = text.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok())?
    };
    let separators = text.len() == 10 && [4, 7].iter().all(|index| text.as_bytes()[*index] == b'-');
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()?;
    separators.then_some(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_name_has_letters_digits_and_few_marks() {
        for good in ["alice", "team-1_a.b", "x", &"n".repeat(64)] {
            assert_eq!(good.parse::<KeyName>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a\n", "ä", "a\"b", "{x}", &"n".repeat(65)] {
            assert_eq!(bad.parse::<KeyName>(), Err(InvalidKeyName), "{bad:?}");
        }
    }

    #[test]
    fn key_hash_round_trips_through_text() {
        let text = format!("sha256:{}", "0f".repeat(32));
        let hash: KeyHash = text.parse().unwrap();
        assert_eq!(hash, KeyHash::new([15; 32]));
        assert_eq!(hash.to_string(), text);
        assert_eq!(hash.short(), "0f".repeat(8));
        assert_eq!(format!("{hash:?}"), "KeyHash(0f0f0f0f0f0f0f0f...)");
    }

    #[test]
    fn key_hash_error_hides_text() {
        for text in
            ["tw-secret", "sha256:", "sha256:xyz", &"0".repeat(64), &format!("md5:{}", "0".repeat(64))]
        {
            let error = text.parse::<KeyHash>().unwrap_err().to_string();
            assert_eq!(error, InvalidKeyHash.to_string());
            assert!(!error.contains("secret") && !error.contains("xyz"));
        }
    }

    #[test]
    fn date_is_a_day_of_the_calendar() {
        let date = parse_date("2028-02-29").unwrap();
        assert_eq!((date.year(), date.ordinal()), (2028, 60));
        for bad in [
            "",
            "2027-02-29",
            "2027-1-31",
            "2027/01/31",
            "31-01-2027",
            "2027-13-01",
            "2027-00-10",
            "2027-01-00",
            "2027-01-31T00",
            "+027-01-31",
            "２０２７-01-31",
        ] {
            assert_eq!(parse_date(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn server_without_token_and_keys_accepts_everyone() {
        assert!(Credentials::default().accepts_everyone());
        assert!(!Credentials::from(Token::new("secret").ok()).accepts_everyone());
    }
}
