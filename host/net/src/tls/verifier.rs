//! Checks of machine keys during the handshake.
//!
//! Machines have no certificate authority. A peer's key counts only by its fingerprint, and the handshake proves that the
//! peer has the private key.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use crate::tls::fingerprint::Fingerprint;
use crate::tls::provider::provider;

/// Which server keys a client accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerTrust {
    /// Only this key.
    Pinned(Fingerprint),
    /// The keys of paired machines.
    Paired(Vec<Fingerprint>),
    /// Any key. Both sides must then prove that they know the token.
    Unknown,
}

/// The server has another key than the client expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UntrustedKey {
    /// The key differs from the pinned one.
    #[error(
        "its key has the fingerprint {presented}, not {expected}. Another machine answers, or its key was replaced: take the new address from that machine"
    )]
    Mismatch {
        /// The expected fingerprint.
        expected: Fingerprint,
        /// The fingerprint of the key that the server has.
        presented: Fingerprint,
    },
    /// The key belongs to no paired machine.
    #[error(
        "its key {0} is unknown. Add #FINGERPRINT to its address, as that machine prints it, or run `tightwad pair`"
    )]
    Unpaired(Fingerprint),
}

impl ServerTrust {
    fn check(&self, presented: Fingerprint) -> Result<(), UntrustedKey> {
        match self {
            Self::Pinned(expected) if *expected != presented => {
                Err(UntrustedKey::Mismatch { expected: *expected, presented })
            }
            Self::Paired(known) if !known.contains(&presented) => Err(UntrustedKey::Unpaired(presented)),
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for ServerTrust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused = |error| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(std::sync::Arc::new(error))))
        };
        self.check(fingerprint(certificate)?).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("machines use TLS 1.3".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Lets clients with any key connect, and clients without a key. The server decides by the fingerprint, later.
#[derive(Debug)]
pub(crate) struct AnyClient;

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        fingerprint(certificate)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("machines use TLS 1.3".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Result<Fingerprint, Error> {
    Fingerprint::of_certificate(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
}
