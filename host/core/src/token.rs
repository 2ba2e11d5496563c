//! Bearer tokens (RFC 6750).
//!
//! Invariant: a [`Token`] has at least one character, and all of them are visible ASCII. An empty setting can
//! therefore never switch authentication off: it is an error where it is read.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use subtle::ConstantTimeEq;

/// A secret that a client sends as `Authorization: Bearer TOKEN`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(Arc<str>);

/// Why a text cannot be a token. The messages never contain the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It has no character, or only white space.
    #[error("the token is empty; give a secret, or leave the setting out")]
    Empty,
    /// It has a character that an HTTP header cannot carry.
    #[error("the token has white space or a character outside ASCII; use letters, digits and punctuation")]
    Characters,
}

impl Token {
    /// The token `text`.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`] for texts that are blank or that a header cannot carry.
    pub fn new(text: &str) -> Result<Self, InvalidToken> {
        if text.trim().is_empty() {
            return Err(InvalidToken::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidToken::Characters);
        }
        Ok(Self(text.into()))
    }

    /// The secret itself, for the header of a request.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// True when the value of an `Authorization` header carries this token. The scheme's case does not matter
    /// (RFC 9110, 11.1). The comparison takes the same time whatever the header says.
    #[must_use]
    pub fn admits(&self, authorization: Option<&[u8]>) -> bool {
        const SCHEME: &[u8] = b"bearer";
        let Some((scheme, rest)) = authorization.and_then(|value| value.split_at_checked(SCHEME.len()))
        else {
            return false;
        };
        let given = rest.trim_ascii();
        scheme.eq_ignore_ascii_case(SCHEME)
            && rest.first().is_some_and(u8::is_ascii_whitespace)
            && bool::from(given.ct_eq(self.0.as_bytes()))
    }
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
    fn blank_texts_and_texts_that_no_header_carries_are_refused() {
        for blank in ["", " ", "\t\n", "\u{a0}"] {
            assert_eq!(Token::new(blank), Err(InvalidToken::Empty), "{blank:?}");
        }
        for odd in ["a b", " a", "a\n", "schlüssel", "a\0"] {
            assert_eq!(Token::new(odd), Err(InvalidToken::Characters), "{odd:?}");
        }
        assert_eq!(Token::new("s3cret-._~+/=").unwrap().secret(), "s3cret-._~+/=");
    }

    #[test]
    fn only_the_same_bearer_token_is_admitted() {
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
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Ok(Token(hidden))");
    }
}
