//! Pairing of two machines by a short code.
//!
//! The host shows a code; the guest's user types it. Both run SPAKE2 (of the crate `spake2`) over TLS, with the exporter of the connection
//! in both identities: a machine in the middle has two connections with two exporters, so its two runs give different keys.
//! Nothing that crosses the network lets anyone try codes without asking the host, and the host ends after
//! [`MAX_ATTEMPTS`] wrong ones. The keys that both sides used for TLS are then stored as paired.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use sha2::Sha256;
use spake2::{Ed25519Group, Password, Spake2};
use tightwad_core::{printable, random_bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::tls::connector::SERVER_NAME;
use crate::tls::fingerprint::Fingerprint;
use crate::tls::identity::Identity;
use crate::tls::paired::PairedMachine;
use crate::tls::proof::Exporter;
use crate::tls::provider::provider;
use crate::tls::verifier::{AnyClient, ServerTrust};

/// The number of wrong codes that end the pairing.
pub const MAX_ATTEMPTS: u32 = 3;
/// The time for which a code is valid.
pub const CODE_LIFETIME: Duration = Duration::from_secs(300);

/// The application protocol (RFC 7301).
const PAIRING_PROTOCOL: &[u8] = b"tightwad-pair/1";
const EXPORTER_LABEL: &[u8] = b"EXPORTER-tightwad-pairing";
/// The time of one exchange.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The length of a SPAKE2 message in bytes.
const MESSAGE_BYTES: usize = 33;
const MAC_BYTES: usize = 32;
/// The maximum length of a machine's name in bytes.
const MAX_NAME_BYTES: usize = 64;
const CODE_DIGITS: usize = 8;

/// The code that one machine shows and the other one's user types: eight digits.
#[derive(Clone, PartialEq, Eq)]
pub struct PairingCode(String);

/// The text is not a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a code has eight digits, such as 1234-5678")]
pub struct InvalidCode;

impl PairingCode {
    /// A random code.
    #[must_use]
    pub fn random() -> Self {
        let number = u64::from_le_bytes(random_bytes());
        // The modulus divides 2^64 so nearly that no code is noticeably more likely.
        Self(format!("{:0width$}", number % 10_u64.pow(CODE_DIGITS as u32), width = CODE_DIGITS))
    }

    /// The code in two groups, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}-{}", &self.0[..CODE_DIGITS / 2], &self.0[CODE_DIGITS / 2..])
    }
}

impl std::str::FromStr for PairingCode {
    type Err = InvalidCode;

    fn from_str(text: &str) -> Result<Self, InvalidCode> {
        let digits: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
        let is_code = digits.len() == CODE_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_code.then_some(Self(digits)).ok_or(InvalidCode)
    }
}

/// Hides the code.
impl std::fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PairingCode(hidden)")
    }
}

/// The machines were not paired.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// The host does not answer.
    #[error(
        "{0} does not answer ({1}): is `tightwad pair` still running there? A code is valid for 5 minutes"
    )]
    Unreachable(String, io::Error),
    /// The other machine has another code, or a machine in the middle changed the exchange.
    #[error("the code is wrong, or another machine answers at this address")]
    WrongCode,
    /// Too many wrong codes.
    #[error("{MAX_ATTEMPTS} codes were wrong. Start `tightwad pair` again for a new code")]
    TooManyAttempts,
    /// The code has expired.
    #[error("the code has expired. Start `tightwad pair` again for a new code")]
    Expired,
    /// The exchange broke.
    #[error("the exchange with the other machine failed: {0}")]
    Exchange(#[from] io::Error),
    /// The TLS library failed.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Waits at `listener` for a machine that knows `code`. `name` is this machine's name.
///
/// # Errors
///
/// [`PairingError`] after three wrong codes, or when the code expires after `lifetime`.
pub async fn host_pairing(
    listener: TcpListener,
    identity: &Identity,
    name: &str,
    code: &PairingCode,
    lifetime: Duration,
) -> Result<PairedMachine, PairingError> {
    let deadline = Instant::now() + lifetime;
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyClient))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key().clone())));
    config.alpn_protocols = vec![PAIRING_PROTOCOL.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut attempts = 0;
    loop {
        let accepted = timeout_at(deadline, listener.accept()).await.map_err(|_| PairingError::Expired)?;
        let Ok((stream, _)) = accepted else { continue };
        let exchange = timeout(EXCHANGE_TIMEOUT, host_exchange(&acceptor, stream, name, code)).await;
        match exchange {
            Ok(Ok(machine)) => return Ok(machine),
            Ok(Err(PairingError::WrongCode)) => attempts += 1,
            // A machine that does not follow the protocol has tried no code.
            other => tracing::debug!(?other, "an exchange failed"),
        }
        if attempts >= MAX_ATTEMPTS {
            return Err(PairingError::TooManyAttempts);
        }
    }
}

async fn host_exchange(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    name: &str,
    code: &PairingCode,
) -> Result<PairedMachine, PairingError> {
    let mut stream = acceptor.accept(stream).await?;
    let (_, session) = stream.get_ref();
    let fingerprint =
        Fingerprint::of_peer(session).ok_or_else(|| io::Error::other("the other machine has no key"))?;
    let exporter = session.export_keying_material(Exporter::default(), EXPORTER_LABEL, None)?;
    let [guest, host] = identities(&exporter);
    let (state, message) = Spake2::<Ed25519Group>::start_b(&Password::new(&code.0), &guest, &host);
    let secret = exchange(&mut stream, state, &message).await?;
    let guest_name = read_confirmation(&mut stream, &secret, Side::Guest).await?;
    write_confirmation(&mut stream, &secret, Side::Host, name).await?;
    stream.shutdown().await?;
    Ok(PairedMachine { name: guest_name, fingerprint })
}

/// Pairs with the machine at `address`, which shows `code`. `name` is this machine's name.
///
/// # Errors
///
/// [`PairingError`] if the machine does not answer, or has another code.
pub async fn join_pairing(
    address: &str,
    identity: &Identity,
    name: &str,
    code: &PairingCode,
) -> Result<PairedMachine, PairingError> {
    let unreachable = |error| PairingError::Unreachable(address.to_owned(), error);
    let late = |_| unreachable(io::Error::other("no answer in time"));
    let stream = timeout(EXCHANGE_TIMEOUT, TcpStream::connect(address)).await.map_err(late)?;
    let stream = stream.map_err(unreachable)?;
    let exchange = timeout(EXCHANGE_TIMEOUT, guest_exchange(stream, identity, name, code)).await;
    exchange.map_err(|_| unreachable(io::Error::other("no answer in time")))?
}

async fn guest_exchange(
    stream: TcpStream,
    identity: &Identity,
    name: &str,
    code: &PairingCode,
) -> Result<PairedMachine, PairingError> {
    let mut config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerTrust::Unknown))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key().clone())));
    config.alpn_protocols = vec![PAIRING_PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    let server_name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(server_name, stream).await?;
    let (_, session) = stream.get_ref();
    let fingerprint =
        Fingerprint::of_peer(session).ok_or_else(|| io::Error::other("the other machine has no key"))?;
    let exporter = session.export_keying_material(Exporter::default(), EXPORTER_LABEL, None)?;
    let [guest, host] = identities(&exporter);
    let (state, message) = Spake2::<Ed25519Group>::start_a(&Password::new(&code.0), &guest, &host);
    let secret = exchange(&mut stream, state, &message).await?;
    write_confirmation(&mut stream, &secret, Side::Guest, name).await?;
    // A host that has another code closes the connection.
    let host_name =
        read_confirmation(&mut stream, &secret, Side::Host).await.map_err(|error| match error {
            PairingError::Exchange(_) => PairingError::WrongCode,
            error => error,
        })?;
    Ok(PairedMachine { name: host_name, fingerprint })
}

/// The identities of the guest and the host on one connection.
fn identities(exporter: &Exporter) -> [spake2::Identity; 2] {
    [&b"tightwad guest"[..], b"tightwad host"].map(|role| spake2::Identity::new(&[role, exporter].concat()))
}

/// Exchanges the messages of SPAKE2. The result is the same secret on both sides if both have the same code.
async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    state: Spake2<Ed25519Group>,
    message: &[u8],
) -> Result<Vec<u8>, PairingError> {
    stream.write_all(message).await?;
    stream.flush().await?;
    let mut received = [0; MESSAGE_BYTES];
    stream.read_exact(&mut received).await?;
    state.finish(&received).map_err(|_| PairingError::WrongCode)
}

/// The side that confirms the secret.
#[derive(Clone, Copy)]
enum Side {
    Guest,
    Host,
}

fn confirmation(secret: &[u8], side: Side, name: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length.
    #[allow(clippy::expect_used)]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
    mac.update(match side {
        Side::Guest => b"guest",
        Side::Host => b"host.",
    });
    mac.update(name);
    mac
}

/// Sends this machine's name, and proves that it has the secret.
async fn write_confirmation(
    stream: &mut (impl AsyncWrite + Unpin),
    secret: &[u8],
    side: Side,
    name: &str,
) -> io::Result<()> {
    let name = &name.as_bytes()[..name.floor_char_boundary(MAX_NAME_BYTES)];
    let mac = confirmation(secret, side, name).finalize().into_bytes();
    stream.write_all(&[&[name.len() as u8][..], name, &mac].concat()).await?;
    stream.flush().await
}

/// Reads the other machine's name, and checks that it has the secret.
async fn read_confirmation(
    stream: &mut (impl AsyncRead + Unpin),
    secret: &[u8],
    side: Side,
) -> Result<String, PairingError> {
    let mut name = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut name).await?;
    let mut mac = [0; MAC_BYTES];
    stream.read_exact(&mut mac).await?;
    confirmation(secret, side, &name).verify_slice(&mac).map_err(|_| PairingError::WrongCode)?;
    Ok(printable(&String::from_utf8_lossy(&name), MAX_NAME_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_eight_digits() {
        let code = PairingCode::random();
        assert_eq!(code.shown().parse(), Ok(code));
        assert_eq!("1234 5678".parse::<PairingCode>().unwrap().shown(), "1234-5678");
        for wrong in ["", "1234567", "123456789", "1234567x", "１２３４５６７８"] {
            assert_eq!(wrong.parse::<PairingCode>(), Err(InvalidCode), "{wrong}");
        }
    }
}
