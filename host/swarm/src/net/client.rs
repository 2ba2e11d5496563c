//! The HTTP client for peers. All replies are bounded in size and time.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use axum::body::Bytes;
use reqwest::header::{CONTENT_RANGE, RANGE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use tightwad_core::Token;
use tightwad_net::{authorized, is_local, machine_client, server_client};

use crate::disk::digest::Digest;
use crate::net::peer::Peer;
use crate::net::wire::{Announce, Have, ModelListing, PeerList};

/// Time limit of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of a short reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Greatest length of a short reply.
const MAX_REPLY_BYTES: u64 = 4 << 20;
/// Greatest length of a manifest's reply.
const MAX_MANIFEST_REPLY_BYTES: u64 = 128 << 20;
/// Longest `Retry-After` that the client respects.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Sends requests to peers. Clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct Client {
    seeders: reqwest::Client,
    /// Web seeds of the local network. Web seeds can redirect; seeders must not.
    local_web_seeds: reqwest::Client,
    /// Web seeds on the internet, which may need a proxy.
    web_seeds: reqwest::Client,
    token: Option<Token>,
}

/// A request to a peer failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The connection failed or broke.
    #[error("{0} does not answer: {1}")]
    Connection(Peer, String),
    /// The peer did not answer in time.
    #[error("{0} sent nothing for {1:?}")]
    Timeout(Peer, Duration),
    /// The peer rejects this machine's token or address.
    #[error("{0} refuses this machine ({1}): give its token with --token, or this address in its allow list")]
    AccessDenied(Peer, StatusCode),
    /// The peer answered with another error status. The duration is its `Retry-After`.
    #[error("{0} answered {1}")]
    Status(Peer, StatusCode, Option<Duration>),
    /// The reply does not follow the protocol.
    #[error("{0} sent an invalid reply: {1}")]
    InvalidReply(Peer, String),
}

impl Client {
    /// Creates a client. Requests to seeders carry `token`; requests to web seeds do not.
    ///
    /// # Errors
    ///
    /// The HTTP library's.
    pub fn new(token: Option<Token>) -> Result<Self, reqwest::Error> {
        let web = |builder: reqwest::ClientBuilder| {
            builder.connect_timeout(CONNECT_TIMEOUT).redirect(Policy::limited(5)).build()
        };
        Ok(Self {
            seeders: machine_client().connect_timeout(CONNECT_TIMEOUT).build()?,
            local_web_seeds: web(server_client("http://localhost"))?,
            web_seeds: web(server_client("https://example.com"))?,
            token,
        })
    }

    /// Lists the models that `peer` seeds.
    ///
    /// # Errors
    ///
    /// When the request fails.
    pub async fn list_models(&self, peer: &Peer) -> Result<Vec<ModelListing>, RequestError> {
        self.json(peer, self.get(peer, "v1/swarm").timeout(REPLY_TIMEOUT)).await.map(|(listed, _)| listed)
    }

    /// Fetches the manifest of `root` as JSON, unchecked.
    pub(crate) async fn manifest(&self, peer: &Peer, root: Digest) -> Result<Bytes, RequestError> {
        let request = self.get(peer, &format!("v1/swarm/{root}/manifest"));
        let response = send(peer, request, REPLY_TIMEOUT).await?;
        read_body(peer, response, MAX_MANIFEST_REPLY_BYTES).await
    }

    /// Asks which pieces of `root` the peer has, and from which address the peer answers. With `since`, the
    /// peer answers when its version differs from `since`, or after `wait`.
    pub(crate) async fn have(
        &self,
        peer: &Peer,
        root: Digest,
        since: Option<u64>,
        wait: Duration,
    ) -> Result<(Have, Option<SocketAddr>), RequestError> {
        let mut url = peer.url(&format!("v1/swarm/{root}/have"));
        let mut timeout = REPLY_TIMEOUT;
        if let Some(since) = since {
            url.set_query(Some(&format!("since={since}&wait_ms={}", wait.as_millis())));
            timeout += wait;
        }
        self.json(peer, self.authorized(self.seeders.get(url)).timeout(timeout)).await
    }

    /// Announces this machine's seeder to `peer`, and receives the addresses of other peers.
    pub(crate) async fn exchange_peers(
        &self,
        peer: &Peer,
        root: Digest,
        announce: &Announce,
    ) -> Result<PeerList, RequestError> {
        let request = self.seeders.post(peer.url(&format!("v1/swarm/{root}/peers"))).json(announce);
        self.json(peer, self.authorized(request).timeout(REPLY_TIMEOUT)).await.map(|(list, _)| list)
    }

    /// Requests a byte range of the file. The headers must arrive within `timeout`; the body is a stream.
    pub(crate) async fn data(
        &self,
        peer: &Peer,
        root: Digest,
        bytes: Range<u64>,
        timeout: Duration,
    ) -> Result<Response, RequestError> {
        let request = match peer {
            Peer::Seeder(_) => self.get(peer, &format!("v1/swarm/{root}/data")),
            Peer::WebSeed(url) if is_local(url.as_str()) => self.local_web_seeds.get(url.clone()),
            Peer::WebSeed(url) => self.web_seeds.get(url.clone()),
        };
        let range = format!("bytes={}-{}", bytes.start, bytes.end.saturating_sub(1));
        let response = send(peer, request.header(RANGE, range), timeout).await?;
        let expected = format!("bytes {}-", bytes.start);
        let received = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        match received {
            _ if response.status() != StatusCode::PARTIAL_CONTENT => {
                Err(RequestError::InvalidReply(peer.clone(), "it does not support range requests".into()))
            }
            Some(received) if received.starts_with(&expected) => Ok(response),
            other => Err(RequestError::InvalidReply(
                peer.clone(),
                format!("requested {expected}, received {other:?}"),
            )),
        }
    }

    /// The size of a web seed's file in bytes. Fails when the server does not support range requests.
    pub(crate) async fn file_size(&self, peer: &Peer, root: Digest) -> Result<u64, RequestError> {
        let response = self.data(peer, root, 0..1, REPLY_TIMEOUT).await?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let size = range.and_then(|range| range.rsplit_once('/')).and_then(|(_, size)| size.parse().ok());
        size.ok_or_else(|| {
            RequestError::InvalidReply(peer.clone(), "it does not report the size of the file".into())
        })
    }

    fn get(&self, peer: &Peer, path: &str) -> RequestBuilder {
        self.authorized(self.seeders.get(peer.url(path)))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        authorized(request, self.token.as_ref())
    }

    async fn json<T: DeserializeOwned>(
        &self,
        peer: &Peer,
        request: RequestBuilder,
    ) -> Result<(T, Option<SocketAddr>), RequestError> {
        let response = check_status(peer, request.send().await)?;
        let address = response.remote_addr();
        let body = read_body(peer, response, MAX_REPLY_BYTES).await?;
        let value = serde_json::from_slice(&body)
            .map_err(|error| RequestError::InvalidReply(peer.clone(), error.to_string()))?;
        Ok((value, address))
    }
}

/// Sends `request`. The headers of the reply must arrive within `timeout`.
async fn send(peer: &Peer, request: RequestBuilder, timeout: Duration) -> Result<Response, RequestError> {
    match tokio::time::timeout(timeout, request.send()).await {
        Ok(reply) => check_status(peer, reply),
        Err(_) => Err(RequestError::Timeout(peer.clone(), timeout)),
    }
}

fn check_status(peer: &Peer, reply: reqwest::Result<Response>) -> Result<Response, RequestError> {
    let response = reply.map_err(|error| RequestError::Connection(peer.clone(), root_cause(&error)))?;
    match response.status() {
        status if status.is_success() => Ok(response),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Err(RequestError::AccessDenied(peer.clone(), status))
        }
        status => {
            let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = seconds.and_then(|value| value.parse().ok()).map(Duration::from_secs);
            let retry_after = retry_after.map(|delay| delay.min(MAX_RETRY_AFTER));
            Err(RequestError::Status(peer.clone(), status, retry_after))
        }
    }
}

/// Reads a body of at most `limit` bytes. Each chunk must arrive within [`REPLY_TIMEOUT`].
async fn read_body(peer: &Peer, mut response: Response, limit: u64) -> Result<Bytes, RequestError> {
    let too_long =
        || RequestError::InvalidReply(peer.clone(), format!("the reply has more than {limit} bytes"));
    let announced = response.content_length().unwrap_or(0);
    if announced > limit {
        return Err(too_long());
    }
    let mut body = Vec::new();
    loop {
        let chunk = tokio::time::timeout(REPLY_TIMEOUT, response.chunk()).await;
        let chunk = chunk.map_err(|_| RequestError::Timeout(peer.clone(), REPLY_TIMEOUT))?;
        match chunk.map_err(|error| RequestError::Connection(peer.clone(), root_cause(&error)))? {
            Some(chunk) if (body.len() + chunk.len()) as u64 > limit => return Err(too_long()),
            Some(chunk) => body.extend_from_slice(&chunk),
            None => return Ok(body.into()),
        }
    }
}

/// The innermost cause of an error. The outer causes only repeat that the request failed.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
