//! Bearer tokens (RFC 6750).
//!
//! Invariant: a [`Token`] has at least one character, and all of its characters are visible ASCII. An empty setting
//! therefore cannot switch authentication off: parsing it fails.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use subtle::ConstantTimeEq;

/// A secret that a client sends as `Authorization: Bearer TOKEN`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(Arc<str>);

/// The text cannot be a token. The messages never contain the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// The text is empty or has only white space.
    #[error("the token is empty; set a secret or remove the setting")]
    Empty,
    /// The text has a character that is not allowed in an HTTP header.
    #[error("the token has white space or a character outside ASCII; use letters, digits and punctuation")]
    Characters,
}

impl Token {
    /// Makes a token of `text`.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidToken`] if the text is blank or not allowed in a header.
    pub fn new(text: &str) -> Result<Self, InvalidToken> {
        if text.trim().is_empty() {
            return Err(InvalidToken::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidToken::Characters);
        }
        Ok(Self(text.into()))
    }

    /// The secret, for the header of a request.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// True when `secret` is this token. The time of the comparison does not depend on the bytes of `secret`.
    #[must_use]
    pub fn matches(&self, secret: &[u8]) -> bool {
        secret.ct_eq(self.0.as_bytes()).into()
    }

    /// True when the value of an `Authorization` header contains this token.
    #[must_use]
    pub fn admits(&self, authorization: Option<&[u8]>) -> bool {
        authorization.and_then(bearer_secret).is_some_and(|secret| self.matches(secret))
    }
}

/// The secret in the value of an `Authorization` header with the scheme `Bearer`. The case of the scheme does not
/// matter (RFC 9110, 11.1).
#[must_use]
pub fn bearer_secret(authorization: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, rest) = authorization.split_at_checked(SCHEME.len())?;
    let secret = rest.trim_ascii();
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME) && rest.first().is_some_and(u8::is_ascii_whitespace);
    (is_bearer && !secret.is_empty()).then_some(secret)
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        Self::new(text)
    }
}

/// Hides the secret.
impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_refuses_blank_and_non_header_texts() {
        for blank in ["", " ", "\t\n", "\u{a0}"] {
            assert_eq!(Token::new(blank), Err(InvalidToken::Empty), "{blank:?}");
        }
        for invalid in ["a b", " a", "a\n", "schlüssel", "a\0"] {
            assert_eq!(Token::new(invalid), Err(InvalidToken::Characters), "{invalid:?}");
        }
        assert_eq!(Token::new("s3cret-._~+/=").unwrap().secret(), "s3cret-._~+/=");
    }

    #[test]
    fn token_admits_only_the_same_bearer_token() {
        let token = Token::new("secret").unwrap();
        for good in ["Bearer secret", "bearer secret", "BEARER   secret", "Bearer secret "] {
            assert!(token.admits(Some(good.as_bytes())), "{good:?}");
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearersecret",
            "Basic secret",
            "Bearer secre",
            "Bearer secretx",
            "secret",
        ] {
            assert!(!token.admits(Some(bad.as_bytes())), "{bad:?}");
        }
        assert!(!token.admits(None));
    }

    #[test]
    fn debug_output_hides_the_secret() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Ok(Token(hidden))");
    }
}
