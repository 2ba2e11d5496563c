//! The HTTP client for peers. All replies are bounded in size and time.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use reqwest::header::{CONTENT_RANGE, RANGE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use tightwad_core::{Token, root_cause};
use tightwad_net::tls::{Identity, MachineTrust, PairedMachines};
use tightwad_net::{MachineClient, MachineRequest, SendError, is_local, server_client};
use tokio::time::{Instant, timeout, timeout_at};

use crate::disk::digest::Digest;
use crate::disk::format::MAX_MANIFEST_BYTES;
use crate::disk::name::safe_name;
use crate::net::peer::Peer;
use crate::net::wire::{Announce, Have, ModelListing, PeerList, are_runs_of};

/// Time limit of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Greatest length of a list of models.
const MAX_LIST_BYTES: u64 = 1 << 20;
/// Greatest length of a reply to a peer exchange.
const MAX_PEER_LIST_BYTES: u64 = 16 << 10;
/// Greatest length of a reply about no pieces.
const MAX_HAVE_BYTES: u64 = 4 << 10;
/// Bytes per piece in a reply about pieces: each piece begins at most one run in one of two lists.
const MAX_HAVE_BYTES_PER_PIECE: u64 = 32;
/// Longest `Retry-After` that the client respects.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// The time limits of replies, except those of data.
#[derive(Debug, Clone, Copy)]
pub struct ReplyLimits {
    /// A short reply must be complete after this time. A manifest must begin, and must never pause for longer.
    pub timeout: Duration,
    /// A manifest must be complete after this time.
    pub manifest_timeout: Duration,
    /// Lowest mean rate of a manifest after `timeout`.
    pub min_bytes_per_second: u32,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            manifest_timeout: Duration::from_secs(600),
            // The manifest of a model of 20 GB has 1.5 MB.
            min_bytes_per_second: 4 << 10,
        }
    }
}

/// Sends requests to peers. Clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct Client {
    seeders: MachineClient,
    /// Web seeds of the local network. Web seeds can redirect; seeders must not.
    local_web_seeds: reqwest::Client,
    /// Web seeds on the internet, which may need a proxy.
    web_seeds: reqwest::Client,
    token: Option<Token>,
    /// The peers that receive the token.
    named: Arc<HashSet<Peer>>,
    /// Whether the user named a plain seeder on another machine.
    allows_plain: bool,
    limits: ReplyLimits,
}

/// A request to a peer failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The connection failed or broke.
    #[error("{0} does not answer: {1}")]
    Connection(Peer, String),
    /// The peer has another key or another token.
    #[error("{0}: {1}")]
    Untrusted(Peer, String),
    /// The connection would not be encrypted.
    #[error("{0} is not encrypted. To use it anyway, name it by --peer and add --insecure")]
    NotEncrypted(Peer),
    /// The peer did not answer in time.
    #[error("{0} sent nothing for {1:?}")]
    Timeout(Peer, Duration),
    /// The peer sent a reply too slowly.
    #[error("{0} sent only {1} bytes of a reply in time")]
    Slow(Peer, usize),
    /// The peer rejects this machine's token or address.
    #[error("{0} refuses this machine ({1}): give its token with --token, or this address in its allow list")]
    AccessDenied(Peer, StatusCode),
    /// The peer needs a token, but the user did not name it.
    #[error(
        "{0} needs a token, and only peers that the user names receive the token: name this peer by --peer (or `peers` in a script)"
    )]
    TokenWithheld(Peer),
    /// The peer answered with another error status. The duration is its `Retry-After`.
    #[error("{0} answered {1}")]
    Status(Peer, StatusCode, Option<Duration>),
    /// The reply does not follow the protocol.
    #[error("{0} sent an invalid reply: {1}")]
    InvalidReply(Peer, String),
}

impl Client {
    /// Creates a client. Encrypted seeders get a proof of `token`, never the token. Plain requests to the seeders in
    /// `named` carry it. Plain requests to other seeders do not: anyone can announce a seeder. Requests to web seeds do not
    /// either. Without `identity`, the key of this machine, the client reaches plain seeders only.
    ///
    /// # Errors
    ///
    /// The HTTP library's.
    pub fn new(
        token: Option<Token>,
        named: &[Peer],
        identity: Option<Identity>,
    ) -> Result<Self, reqwest::Error> {
        let trust = identity.map(|identity| MachineTrust {
            identity,
            paired: PairedMachines::of_user(),
            pinned: named.iter().filter_map(Peer::pin).collect(),
            token: token.clone(),
            // The digest of a model tells whether its pieces are right.
            accepts_unknown: true,
        });
        let web = |builder: reqwest::ClientBuilder| {
            builder.connect_timeout(CONNECT_TIMEOUT).redirect(Policy::limited(5)).build()
        };
        Ok(Self {
            seeders: MachineClient::new(trust, None, CONNECT_TIMEOUT)?,
            local_web_seeds: web(server_client("http://localhost"))?,
            web_seeds: web(server_client("https://example.com"))?,
            token,
            named: Arc::new(named.iter().cloned().collect()),
            allows_plain: named.iter().any(Peer::is_exposed),
            limits: ReplyLimits::default(),
        })
    }

    /// Sets the time limits of replies.
    #[must_use]
    pub fn with_limits(mut self, limits: ReplyLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Lists the models that `peer` seeds. All names are safe.
    ///
    /// # Errors
    ///
    /// When the request fails.
    pub async fn list_models(&self, peer: &Peer) -> Result<Vec<ModelListing>, RequestError> {
        let request = self.get(peer, "v1/swarm")?.timeout(self.limits.timeout);
        let (listed, _) = self.json::<Vec<ModelListing>>(peer, request, MAX_LIST_BYTES).await?;
        match listed.iter().find(|model| safe_name(&model.name) != model.name) {
            Some(model) => Err(RequestError::InvalidReply(
                peer.clone(),
                format!("the name of {} is not a safe name", model.root),
            )),
            None => Ok(listed),
        }
    }

    /// Fetches the manifest of `root` as JSON, unchecked.
    pub(crate) async fn manifest(&self, peer: &Peer, root: Digest) -> Result<Bytes, RequestError> {
        let request = self.get(peer, &format!("v1/swarm/{root}/manifest"))?;
        let response = self.wait(peer, request.send(), self.limits.timeout).await?;
        self.read_body(peer, response, MAX_MANIFEST_BYTES).await
    }

    /// Asks which of the `pieces` pieces of `root` the peer has, and from which address the peer answers. With
    /// `since`, the peer answers when its version differs from `since`, or after `wait`.
    pub(crate) async fn have(
        &self,
        peer: &Peer,
        (root, pieces): (Digest, u32),
        since: Option<u64>,
        wait: Duration,
    ) -> Result<(Have, Option<SocketAddr>), RequestError> {
        let mut url = peer.url(&format!("v1/swarm/{root}/have"));
        let mut timeout = self.limits.timeout;
        if let Some(since) = since {
            url.set_query(Some(&format!("since={since}&wait_ms={}", wait.as_millis())));
            timeout += wait;
        }
        let request = self.seeder_request(peer, Method::GET, url.as_str())?.timeout(timeout);
        let max_bytes = MAX_HAVE_BYTES + MAX_HAVE_BYTES_PER_PIECE * u64::from(pieces);
        let (have, address) = self.json::<Have>(peer, request, max_bytes).await?;
        if are_runs_of(&have.pieces, pieces) && are_runs_of(&have.in_progress, pieces) {
            Ok((have, address))
        } else {
            let reason = format!("its runs are not ascending runs of {pieces} pieces");
            Err(RequestError::InvalidReply(peer.clone(), reason))
        }
    }

    /// Announces this machine's seeder to `peer`, and receives the addresses of other peers.
    pub(crate) async fn exchange_peers(
        &self,
        peer: &Peer,
        root: Digest,
        announce: &Announce,
    ) -> Result<PeerList, RequestError> {
        let url = peer.url(&format!("v1/swarm/{root}/peers"));
        let request = self.seeder_request(peer, Method::POST, url.as_str())?.json(announce);
        let request = request.timeout(self.limits.timeout);
        self.json(peer, request, MAX_PEER_LIST_BYTES).await.map(|(list, _)| list)
    }

    /// Requests a byte range of the file. The headers must arrive within `timeout`; the body is a stream.
    pub(crate) async fn data(
        &self,
        peer: &Peer,
        root: Digest,
        bytes: Range<u64>,
        timeout: Duration,
    ) -> Result<Response, RequestError> {
        let range = format!("bytes={}-{}", bytes.start, bytes.end.saturating_sub(1));
        let response = match peer {
            Peer::Seeder(_) => {
                let request = self.get(peer, &format!("v1/swarm/{root}/data"))?.header(RANGE, &range);
                self.wait(peer, request.send(), timeout).await?
            }
            Peer::WebSeed(url) => {
                let client = if is_local(url.as_str()) { &self.local_web_seeds } else { &self.web_seeds };
                self.wait(peer, client.get(url.clone()).header(RANGE, &range).send(), timeout).await?
            }
        };
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
        let response = self.data(peer, root, 0..1, self.limits.timeout).await?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let size = range.and_then(|range| range.rsplit_once('/')).and_then(|(_, size)| size.parse().ok());
        size.ok_or_else(|| {
            RequestError::InvalidReply(peer.clone(), "it does not report the size of the file".into())
        })
    }

    fn get(&self, peer: &Peer, path: &str) -> Result<MachineRequest, RequestError> {
        self.seeder_request(peer, Method::GET, peer.url(path).as_str())
    }

    /// A request to a seeder. Only a plain request to a named one carries the token. Plain seeders on other machines are
    /// used only if the user named one.
    fn seeder_request(&self, peer: &Peer, method: Method, url: &str) -> Result<MachineRequest, RequestError> {
        if !self.allows_plain && peer.is_exposed() {
            return Err(RequestError::NotEncrypted(peer.clone()));
        }
        let token = self.token.as_ref().filter(|_| self.named.contains(peer));
        Ok(self.seeders.request(method, url).with_token(token))
    }

    async fn json<T: DeserializeOwned>(
        &self,
        peer: &Peer,
        request: MachineRequest,
        max_bytes: u64,
    ) -> Result<(T, Option<SocketAddr>), RequestError> {
        let response = self.check_status(peer, request.send().await)?;
        let address = response.remote_addr();
        let body = self.read_body(peer, response, max_bytes).await?;
        let value = serde_json::from_slice(&body)
            .map_err(|error| RequestError::InvalidReply(peer.clone(), error.to_string()))?;
        Ok((value, address))
    }

    /// Waits for the headers of `reply`, at most for `limit`.
    async fn wait<E: Into<SendError>>(
        &self,
        peer: &Peer,
        reply: impl Future<Output = Result<Response, E>>,
        limit: Duration,
    ) -> Result<Response, RequestError> {
        match timeout(limit, reply).await {
            Ok(reply) => self.check_status(peer, reply.map_err(Into::into)),
            Err(_) => Err(RequestError::Timeout(peer.clone(), limit)),
        }
    }

    fn check_status(
        &self,
        peer: &Peer,
        reply: Result<Response, SendError>,
    ) -> Result<Response, RequestError> {
        let response = reply.map_err(|error| match error {
            SendError::TimedOut(limit) => RequestError::Timeout(peer.clone(), limit),
            error if error.is_refusal() => RequestError::Untrusted(peer.clone(), root_cause(&error)),
            error => RequestError::Connection(peer.clone(), root_cause(&error)),
        })?;
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UPGRADE_REQUIRED => Err(RequestError::Untrusted(
                peer.clone(),
                "it is encrypted: use the address that it prints, which begins with tightwad://".to_owned(),
            )),
            StatusCode::UNAUTHORIZED if !peer.is_encrypted() && !self.named.contains(peer) => {
                Err(RequestError::TokenWithheld(peer.clone()))
            }
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

    /// Reads a body of at most `max_bytes` bytes. Each chunk must arrive within the time limits.
    async fn read_body(
        &self,
        peer: &Peer,
        mut response: Response,
        max_bytes: u64,
    ) -> Result<Bytes, RequestError> {
        let too_long =
            || RequestError::InvalidReply(peer.clone(), format!("the reply has more than {max_bytes} bytes"));
        if response.content_length().unwrap_or(0) > max_bytes {
            return Err(too_long());
        }
        let (started, limits, mut body) = (Instant::now(), self.limits, Vec::new());
        loop {
            let time_of_rate =
                Duration::from_secs_f64(body.len() as f64 / f64::from(limits.min_bytes_per_second.max(1)));
            let total = (limits.timeout + time_of_rate).min(limits.manifest_timeout);
            let deadline = (started + total).min(Instant::now() + limits.timeout);
            let chunk = timeout_at(deadline, response.chunk()).await;
            let chunk = chunk.map_err(|_| RequestError::Slow(peer.clone(), body.len()))?;
            match chunk.map_err(|error| RequestError::Connection(peer.clone(), root_cause(&error)))? {
                Some(chunk) if (body.len() + chunk.len()) as u64 > max_bytes => return Err(too_long()),
                Some(chunk) => body.extend_from_slice(&chunk),
                None => return Ok(body.into()),
            }
        }
    }
}
