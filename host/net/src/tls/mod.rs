//! Encryption between machines: TLS 1.3 (RFC 8446) with keys that machines make themselves.
//!
//! A machine is known by the [`Fingerprint`] of its key. A client accepts a server whose fingerprint is in the address, that
//! is paired, or that proves the shared token; see [`MachineTrust`]. A server accepts clients in the same ways; see
//! [`ServerTls`].

pub(crate) mod certificate;
pub(crate) mod connector;
pub(crate) mod fingerprint;
pub(crate) mod identity;
pub(crate) mod paired;
pub(crate) mod pairing;
pub(crate) mod proof;
pub(crate) mod provider;
pub(crate) mod server;
pub(crate) mod trust;
pub(crate) mod verifier;

/// The scheme of the addresses of encrypted machines: `tightwad://HOST:PORT#FINGERPRINT`.
pub const MACHINE_SCHEME: &str = "tightwad";

pub use certificate::{CertificateFileError, CertificateFiles, CertificatePaths};
pub use connector::ConnectError;
pub use fingerprint::{Fingerprint, InvalidFingerprint};
pub use identity::{Identity, IdentityError};
pub use paired::{PairedMachine, PairedMachines};
pub use pairing::{
    CODE_LIFETIME, InvalidCode, MAX_ATTEMPTS, PairingCode, PairingError, host_pairing, join_pairing,
};
pub use proof::ProofError;
pub use server::ServerTls;
pub use trust::MachineTrust;
pub use verifier::UntrustedKey;
