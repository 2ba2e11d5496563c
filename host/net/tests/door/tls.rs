//! Encrypted connections between machines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tempfile::TempDir;
use tightwad_core::{Token, root_cause};
use tightwad_net::door::{DoorConfig, Encryption, PlainAccess, Shutdown, serve};
use tightwad_net::tls::{Fingerprint, Identity, MachineTrust, PairedMachine, PairedMachines, ServerTls};
use tightwad_net::{MachineClient, RemoteMachine};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A machine with its key and its list of paired machines.
struct Owner {
    folder: TempDir,
    identity: Identity,
}

impl Owner {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::in_folder(folder.path()).unwrap();
        Self { folder, identity }
    }

    fn paired(&self) -> PairedMachines {
        PairedMachines::in_folder(self.folder.path().into())
    }

    fn pair_with(&self, other: &Self) {
        let fingerprint = other.identity.fingerprint();
        self.paired().add(PairedMachine { name: "other".to_owned(), fingerprint }).unwrap();
    }

    /// A server that answers with the authorization of each request.
    async fn serve(&self, token: Option<&str>) -> (SocketAddr, JoinHandle<()>) {
        let token = token.map(|token| Token::new(token).unwrap());
        let tls = ServerTls::of_machine(&self.identity, self.paired(), token).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authorization = async |request: Request| {
            let value = request.headers().get("authorization");
            value.map_or("none".to_owned(), |value| value.to_str().unwrap().to_owned())
        };
        let router = Router::new().route("/", get(authorization));
        let encryption = Encryption { tls: Some(tls), plain: PlainAccess::Nowhere };
        let config = DoorConfig { encryption, ..DoorConfig::new(|| true) };
        let serving = tokio::spawn(async move {
            serve(listener, router, config, Shutdown::never()).await.unwrap();
        });
        (address, serving)
    }

    /// What this machine receives from the server at `address`, or the error.
    async fn ask(
        &self,
        address: SocketAddr,
        token: Option<&str>,
        pin: Option<Fingerprint>,
    ) -> Result<String, String> {
        let trust = MachineTrust {
            identity: self.identity.clone(),
            paired: self.paired(),
            pinned: pin.map(|pin| (address.to_string(), pin)).into_iter().collect(),
            token: token.map(|token| Token::new(token).unwrap()),
            accepts_unknown: false,
        };
        let client = MachineClient::new(Some(trust), None, TIMEOUT).unwrap();
        let request = client.request(reqwest::Method::GET, &format!("tightwad://{address}/"));
        let response = request.timeout(TIMEOUT).send().await.map_err(|error| root_cause(&error))?;
        response.text().await.map_err(|error| root_cause(&error))
    }
}

#[tokio::test]
async fn fingerprint_in_the_address_names_the_server() {
    let (server, client) = (Owner::new(), Owner::new());
    let (address, _serving) = server.serve(Some("secret")).await;
    let pin = Some(server.identity.fingerprint());
    assert_eq!(client.ask(address, Some("secret"), pin).await.unwrap(), "Bearer secret");
    assert_eq!(client.ask(address, None, pin).await.unwrap(), "none");
    let wrong = client.ask(address, Some("secret"), Some(client.identity.fingerprint())).await.unwrap_err();
    assert!(
        wrong.starts_with("its key has the fingerprint ") && wrong.contains("Another machine answers"),
        "{wrong}"
    );
    let wrong = client.ask(address, Some("other"), pin).await.unwrap_err();
    assert_eq!(wrong, "it does not accept this token: set `token` to the one that it was started with");
}

#[tokio::test]
async fn unknown_server_must_prove_the_token() {
    let (server, client) = (Owner::new(), Owner::new());
    let (address, _serving) = server.serve(Some("secret")).await;
    assert_eq!(client.ask(address, Some("secret"), None).await.unwrap(), "Bearer secret");
    let error = client.ask(address, None, None).await.unwrap_err();
    assert!(error.contains("is unknown. Add #FINGERPRINT to its address"), "{error}");
    let (open, _serving) = server.serve(None).await;
    let error = client.ask(open, Some("secret"), None).await.unwrap_err();
    assert!(error.contains("is unknown and it has no token"), "{error}");
}

#[tokio::test]
async fn paired_machines_need_no_token() {
    let (server, client, stranger) = (Owner::new(), Owner::new(), Owner::new());
    client.pair_with(&server);
    let (address, _serving) = server.serve(Some("secret")).await;
    assert_eq!(client.ask(address, None, None).await.unwrap(), "none");
    // A running server reads the list again.
    server.pair_with(&client);
    assert_eq!(client.ask(address, None, None).await.unwrap(), "Bearer secret");
    let pin = Some(server.identity.fingerprint());
    assert_eq!(stranger.ask(address, None, pin).await.unwrap(), "none");
    // Its own token does not matter.
    assert_eq!(client.ask(address, Some("another"), None).await.unwrap(), "Bearer secret");
    server.paired().remove("other").unwrap();
    assert_eq!(client.ask(address, None, None).await.unwrap(), "none");
}

#[tokio::test]
async fn plain_request_gets_one_error() {
    let server = Owner::new();
    let (address, _serving) = server.serve(Some("secret")).await;
    let machine = RemoteMachine::new(format!("http://{address}").parse().unwrap(), None, TIMEOUT).unwrap();
    let response = machine.request(reqwest::Method::GET, "/").send().await.unwrap();
    assert_eq!(response.status(), 426);
    assert!(
        response.text().await.unwrap().contains("this server is encrypted: use the address that it prints")
    );
}

#[tokio::test]
async fn plain_server_gets_one_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = DoorConfig::new(|| false);
    tokio::spawn(serve(listener, Router::new(), config, Shutdown::never()));
    let error = Owner::new().ask(address, Some("secret"), None).await.unwrap_err();
    assert!(error.starts_with("it does not encrypt: use an address with http://"), "{error}");
}

#[tokio::test]
async fn machine_in_the_middle_is_refused() {
    let (server, client) = (Owner::new(), Owner::new());
    let (address, _serving) = server.serve(Some("secret")).await;
    let middle = relay_decrypted(address, b"tightwad/1").await;
    let pinned = client.ask(middle, Some("secret"), Some(server.identity.fingerprint())).await.unwrap_err();
    assert!(pinned.contains("Another machine answers"), "{pinned}");
    // Without a fingerprint, the client completes the handshake with the machine in the middle. The proof stops it.
    let proved = client.ask(middle, Some("secret"), None).await.unwrap_err();
    assert_eq!(proved, "it does not accept this token: set `token` to the one that it was started with");
}

/// A machine between a client and `server`. It has a key of its own, and sees all bytes decrypted.
pub(crate) async fn relay_decrypted(server: SocketAddr, protocol: &[u8]) -> SocketAddr {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["tightwad".to_owned()]).unwrap().self_signed(&key).unwrap();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut accept = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private.clone_key())
        .unwrap();
    accept.alpn_protocols = vec![protocol.to_vec()];
    let mut connect = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsAll))
        .with_client_auth_cert(vec![certificate.der().clone()], private)
        .unwrap();
    connect.alpn_protocols = vec![protocol.to_vec()];
    let (acceptor, connector) = (TlsAcceptor::from(Arc::new(accept)), TlsConnector::from(Arc::new(connect)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (acceptor, connector) = (acceptor.clone(), connector.clone());
            tokio::spawn(async move {
                // A client that refuses this key ends the handshake.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let tcp = TcpStream::connect(server).await.unwrap();
                let name = ServerName::try_from("tightwad").unwrap();
                let mut server = connector.connect(name, tcp).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[derive(Debug)]
struct TrustsAll;

impl ServerCertVerifier for TrustsAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
