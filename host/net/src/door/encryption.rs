//! The first bytes of a connection: they say whether it is encrypted.

use std::io;
use std::net::SocketAddr;

use axum::http::HeaderValue;
use tokio::io::AsyncWriteExt;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::door::config::{Encryption, PlainAccess};
use crate::door::io::DoorStream;
use crate::http::error::ApiError;

/// The first byte of a TLS handshake (RFC 8446, 5.1). No method of HTTP begins with it.
const HANDSHAKE: u8 = 22;

/// A client's connection, ready for requests.
pub(crate) struct Client {
    pub stream: Either<DoorStream, TlsStream<DoorStream>>,
    /// The authorization of all requests.
    pub authorization: Option<HeaderValue>,
}

/// Waits for the first byte, and completes the handshake of an encrypted connection.
pub(crate) async fn open(
    encryption: &Encryption,
    mut stream: DoorStream,
    peer: SocketAddr,
) -> io::Result<Client> {
    let Some(tls) = &encryption.tls else { return Ok(Client::plain(stream)) };
    match stream.first_byte().await? {
        Some(HANDSHAKE) => {
            let client = tls.accept(stream).await?;
            Ok(Client { stream: Either::Right(client.stream), authorization: client.authorization })
        }
        Some(_) if !allows_plain(encryption.plain, peer) => {
            // A client that cannot read this sees a closed connection.
            let _ = stream.write_all(ApiError::not_encrypted().closing_response().as_bytes()).await;
            let _ = stream.shutdown().await;
            Err(io::Error::other("the connection was not encrypted"))
        }
        _ => Ok(Client::plain(stream)),
    }
}

fn allows_plain(access: PlainAccess, peer: SocketAddr) -> bool {
    match access {
        PlainAccess::Everywhere => true,
        PlainAccess::Loopback => peer.ip().to_canonical().is_loopback(),
        PlainAccess::Nowhere => false,
    }
}

impl Client {
    fn plain(stream: DoorStream) -> Self {
        Self { stream: Either::Left(stream), authorization: None }
    }
}
