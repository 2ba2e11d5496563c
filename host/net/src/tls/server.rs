//! The encrypted side of a server.

use std::io;
use std::sync::Arc;

use axum::http::HeaderValue;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ConfigBuilder, ServerConfig, SupportedProtocolVersion, WantsVerifier};
use tightwad_core::Token;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::fingerprint::Fingerprint;
use crate::tls::identity::Identity;
use crate::tls::paired::PairedMachines;
use crate::tls::proof::{EXPORTER_LABEL, Exporter, HTTP_PROTOCOL, PROOF_PROTOCOL, check_proof};
use crate::tls::provider::provider;
use crate::tls::verifier::AnyClient;

/// How a server encrypts, and which machines it knows by their keys.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    /// `None` for an endpoint, whose clients are people's programs.
    machines: Option<Arc<KnownMachines>>,
}

/// The machines that a server knows.
struct KnownMachines {
    paired: PairedMachines,
    token: Option<Token>,
}

/// An encrypted connection of a client.
pub(crate) struct EncryptedClient<S> {
    pub stream: TlsStream<S>,
    /// The authorization of all its requests, for a client that is paired or has proved the token.
    pub authorization: Option<HeaderValue>,
}

impl ServerTls {
    /// TLS between machines: the key of this machine, paired clients, and clients that prove `token`. Requests of such
    /// clients count as if they carried `token`.
    ///
    /// # Errors
    ///
    /// The error of the TLS library.
    pub fn of_machine(
        identity: &Identity,
        paired: PairedMachines,
        token: Option<Token>,
    ) -> Result<Self, rustls::Error> {
        let certificate = SingleCertAndKey::from(identity.certified_key().clone());
        let protocols = [PROOF_PROTOCOL, HTTP_PROTOCOL];
        let clients = Arc::new(AnyClient);
        let config =
            config(&[&TLS13])?.with_client_cert_verifier(clients).with_cert_resolver(Arc::new(certificate));
        let acceptor = acceptor(config, &protocols);
        Ok(Self { acceptor, machines: Some(Arc::new(KnownMachines { paired, token })) })
    }

    /// TLS of an endpoint with the certificate that `certificate` gives at that moment.
    ///
    /// # Errors
    ///
    /// The error of the TLS library.
    pub fn of_endpoint(certificate: Arc<dyn ResolvesServerCert>) -> Result<Self, rustls::Error> {
        let config = config(&[&TLS13, &TLS12])?.with_no_client_auth().with_cert_resolver(certificate);
        Ok(Self { acceptor: acceptor(config, &[HTTP_PROTOCOL]), machines: None })
    }

    /// The server's side of the handshake and of the proof.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<EncryptedClient<S>> {
        let mut stream = self.acceptor.accept(stream).await?;
        let Some(machines) = &self.machines else {
            return Ok(EncryptedClient { stream, authorization: None });
        };
        let (_, session) = stream.get_ref();
        let is_paired = Fingerprint::of_peer(session).is_some_and(|key| machines.paired.contains(key));
        let mut is_known = is_paired;
        if session.alpn_protocol() == Some(PROOF_PROTOCOL) {
            let exporter = session.export_keying_material(Exporter::default(), EXPORTER_LABEL, None);
            let exporter = exporter.map_err(io::Error::other)?;
            is_known |= check_proof(&mut stream, &exporter, machines.token.as_ref(), is_paired).await?;
        }
        let authorization = machines.token.as_ref().filter(|_| is_known).and_then(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.secret())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(EncryptedClient { stream, authorization })
    }
}

fn config(
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(provider().clone()).with_protocol_versions(versions)
}

fn acceptor(mut config: ServerConfig, protocols: &[&[u8]]) -> TlsAcceptor {
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // Clients keep their connections. A resumed session would also skip the check of a machine's key.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    TlsAcceptor::from(Arc::new(config))
}
