//! Opens encrypted connections to machines.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, OtherError};
use tightwad_core::root_cause;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::util::BoxCloneSyncService;
use tower::{Service, service_fn};

use crate::scoped_host::resolve;
use crate::tls::fingerprint::Fingerprint;
use crate::tls::proof::{EXPORTER_LABEL, Exporter, PROOF_PROTOCOL, ProofError, Proved, prove};
use crate::tls::provider::provider;
use crate::tls::trust::MachineTrust;
use crate::tls::verifier::{ServerTrust, UntrustedKey};

/// The silence after which the system asks whether the machine still exists.
const KEEPALIVE_TIME: Duration = Duration::from_secs(15);

/// The name that clients send in the handshake.
pub(crate) const SERVER_NAME: &str = "tightwad";

/// The reason why a connection to a machine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The TCP connection failed.
    #[error("{0}")]
    Tcp(String),
    /// The machine has another key than expected.
    #[error(transparent)]
    Untrusted(#[from] UntrustedKey),
    /// The machine does not speak TLS.
    #[error(
        "it does not encrypt: use an address with http:// for a machine that listens on loopback or was started with --insecure"
    )]
    NotEncrypted,
    /// The machine speaks TLS, but not tightwad's protocol.
    #[error("it is not a tightwad machine")]
    NoMachine,
    /// The handshake failed.
    #[error("the encryption failed: {0}")]
    Handshake(io::Error),
    /// The proof of the token failed.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The machine's key is unknown, and the machine has no token.
    #[error(
        "its key {0} is unknown and it has no token. Add #FINGERPRINT to its address, as that machine prints it, or run `tightwad pair`"
    )]
    Unproven(Fingerprint),
    /// The connection was not ready in time.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
}

impl ConnectError {
    /// True when another attempt fails as well.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Tcp(_)
            | Self::Handshake(_)
            | Self::TimedOut(_)
            | Self::Proof(ProofError::Connection(_)) => false,
            Self::Untrusted(_)
            | Self::NotEncrypted
            | Self::NoMachine
            | Self::Unproven(_)
            | Self::Proof(_) => true,
        }
    }
}

/// Resolves names of link-local addresses here, and all other names by the system.
type Resolver = BoxCloneSyncService<Name, std::vec::IntoIter<SocketAddr>, io::Error>;

/// Opens encrypted connections to machines. Clones share the trust.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector<Resolver>,
    trust: Arc<MachineTrust>,
    timeout: Duration,
}

impl Connector {
    /// A connector whose connections are ready within `timeout`.
    pub(crate) fn new(trust: Arc<MachineTrust>, timeout: Duration) -> Self {
        let resolver =
            service_fn(|name: Name| async move { resolve(name.as_str()).await.map(Vec::into_iter) });
        let mut tcp = HttpConnector::new_with_resolver(BoxCloneSyncService::new(resolver));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE_TIME));
        Self { tcp, trust, timeout }
    }

    async fn connect(mut self, uri: Uri) -> Result<MachineStream, ConnectError> {
        let tcp = self.tcp.call(uri.clone()).await.map_err(|error| ConnectError::Tcp(root_cause(&error)))?;
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let trust = self.trust.of(authority);
        let connector = TlsConnector::from(Arc::new(self.config(trust.clone())?));
        // Machines are told apart by their keys. The name only completes the handshake.
        let name =
            ServerName::try_from(SERVER_NAME).map_err(io::Error::other).map_err(ConnectError::Handshake)?;
        let mut stream = connector.connect(name, tcp.into_inner()).await.map_err(handshake_error)?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(PROOF_PROTOCOL) {
            return Err(ConnectError::NoMachine);
        }
        let key = Fingerprint::of_peer(session).ok_or(ConnectError::NoMachine)?;
        let exporter = session.export_keying_material(Exporter::default(), EXPORTER_LABEL, None);
        let exporter = exporter.map_err(io::Error::other).map_err(ConnectError::Handshake)?;
        let proved = prove(&mut stream, &exporter, self.trust.token.as_ref()).await?;
        let is_known = trust != ServerTrust::Unknown
            || proved == Proved::Both
            || self.trust.accepts_unknown
            || self.trust.paired.contains(key);
        if is_known { Ok(MachineStream(stream)) } else { Err(ConnectError::Unproven(key)) }
    }

    fn config(&self, trust: ServerTrust) -> Result<ClientConfig, ConnectError> {
        let builder = ClientConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)
            .map_err(ConnectError::Handshake)?;
        let key = self.trust.identity.certified_key().clone();
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![PROOF_PROTOCOL.to_vec()];
        // A resumed session would not check the key again.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<MachineStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connector, limit) = (self.clone(), self.timeout);
        Box::pin(async move {
            let connected = timeout(limit, connector.connect(uri)).await;
            connected.map_err(|_| ConnectError::TimedOut(limit))?.map(TokioIo::new)
        })
    }
}

/// The error of a failed handshake. The error of a refused key is inside rustls's.
fn handshake_error(error: io::Error) -> ConnectError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) => {
            match other.downcast_ref::<UntrustedKey>() {
                Some(untrusted) => untrusted.clone().into(),
                None => ConnectError::Handshake(error),
            }
        }
        Some(rustls::Error::InvalidMessage(_)) => ConnectError::NotEncrypted,
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => {
            ConnectError::NoMachine
        }
        _ => ConnectError::Handshake(error),
    }
}

/// An encrypted connection to a machine.
pub(crate) struct MachineStream(TlsStream<TcpStream>);

impl Connection for MachineStream {
    fn connected(&self) -> Connected {
        // The addresses.
        self.0.get_ref().0.connected()
    }
}

impl AsyncRead for MachineStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for MachineStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
