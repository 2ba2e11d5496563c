//! Fingerprints of machine keys.

use std::fmt;
use std::str::FromStr;

use rustls::CommonState;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};
use tightwad_core::{parse_digest, to_hex};

/// The SHA-256 of a machine's public key (its `SubjectPublicKeyInfo` in DER, RFC 5280). It names the machine, and is
/// not secret. As text: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// The text is not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 hexadecimal digits, not {0} characters")]
pub struct InvalidFingerprint(usize);

impl Fingerprint {
    /// The fingerprint of the key in `certificate`; `None` for a damaged certificate.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        Some(Self::of_key(&parsed.subject_public_key_info()))
    }

    /// The fingerprint of the machine at the other end; `None` if it has sent no certificate.
    pub(crate) fn of_peer(session: &CommonState) -> Option<Self> {
        Self::of_certificate(session.peer_certificates()?.first()?)
    }

    /// The fingerprint of a public key in DER.
    pub(crate) fn of_key(public_key: &[u8]) -> Self {
        Self(Sha256::digest(public_key).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        parse_digest(text).map(Self).ok_or_else(|| InvalidFingerprint(text.chars().count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_text_can_be_parsed() {
        let fingerprint = Fingerprint::of_key(b"key");
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        assert_eq!("ab".parse::<Fingerprint>(), Err(InvalidFingerprint(2)));
    }
}
