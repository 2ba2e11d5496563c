//! Questions to peers, with bounded answers.

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
use crate::net::wire::{Announce, Have, Known, Listed};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a short answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest of the short answers, in bytes.
const SHORT: u64 = 4 << 20;
/// Longest manifest, in bytes.
const MANIFEST: u64 = 128 << 20;
/// Longest pause that a busy peer may ask for.
const PAUSE: Duration = Duration::from_secs(30);

/// Asks peers: one pool of connections for everything. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    seeders: reqwest::Client,
    /// Web servers of the local network. They may redirect; seeders must not.
    local_files: reqwest::Client,
    /// Web servers on the internet, perhaps behind a proxy.
    files: reqwest::Client,
    token: Option<Token>,
}

/// Why a peer's answer is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No answer.
    #[error("{0} does not answer: {1}")]
    Silent(Peer, String),
    /// No answer in time.
    #[error("{0} said nothing for {1:?}")]
    Slow(Peer, Duration),
    /// The peer wants another token, or another address.
    #[error("{0} refuses this machine ({1}): give its token with --token, or this address in its allow list")]
    Shut(Peer, StatusCode),
    /// The peer has no such model, or not these bytes, or no time.
    #[error("{0} answered {1}")]
    Refused(Peer, StatusCode, Option<Duration>),
    /// The answer makes no sense.
    #[error("{0} answered nonsense: {1}")]
    Nonsense(Peer, String),
}

impl Client {
    /// `token`: what seeders want to see; web servers never see it.
    ///
    /// # Errors
    ///
    /// The HTTP library's.
    pub fn new(token: Option<Token>) -> Result<Self, reqwest::Error> {
        let files = |builder: reqwest::ClientBuilder| {
            builder.connect_timeout(CONNECT).redirect(Policy::limited(5)).build()
        };
        Ok(Self {
            seeders: machine_client().connect_timeout(CONNECT).build()?,
            local_files: files(server_client("http://localhost"))?,
            files: files(server_client("https://example.com"))?,
            token,
        })
    }

    /// What `peer` seeds.
    ///
    /// # Errors
    ///
    /// When it does not say.
    pub async fn list(&self, peer: &Peer) -> Result<Vec<Listed>, AskError> {
        self.json(peer, self.get(peer, "v1/swarm").timeout(ANSWER)).await.map(|(listed, _)| listed)
    }

    /// The manifest of `root`, as `peer` says it; not checked.
    pub(crate) async fn manifest(&self, peer: &Peer, root: Digest) -> Result<Bytes, AskError> {
        let request = self.get(peer, &format!("v1/swarm/{root}/manifest"));
        let response = sent(peer, request, ANSWER).await?;
        bounded(peer, response, MANIFEST).await
    }

    /// What `peer` has of `root`: at once, or for at most `wait` only when it is no longer `since`.
    pub(crate) async fn have(
        &self,
        peer: &Peer,
        root: Digest,
        since: Option<u64>,
        wait: Duration,
    ) -> Result<(Have, Option<SocketAddr>), AskError> {
        let mut url = peer.at(&format!("v1/swarm/{root}/have"));
        let mut within = ANSWER;
        if let Some(since) = since {
            url.set_query(Some(&format!("since={since}&wait_ms={}", wait.as_millis())));
            within += wait;
        }
        self.json(peer, self.authorized(self.seeders.get(url)).timeout(within)).await
    }

    /// Tells `peer` of this machine's seeder, and asks it for others.
    pub(crate) async fn exchange(
        &self,
        peer: &Peer,
        root: Digest,
        announce: &Announce,
    ) -> Result<Known, AskError> {
        let request = self.seeders.post(peer.at(&format!("v1/swarm/{root}/peers"))).json(announce);
        self.json(peer, self.authorized(request).timeout(ANSWER)).await.map(|(known, _)| known)
    }

    /// These bytes of the file, as a stream.
    pub(crate) async fn data(
        &self,
        peer: &Peer,
        root: Digest,
        bytes: Range<u64>,
        within: Duration,
    ) -> Result<Response, AskError> {
        let request = match peer {
            Peer::Seeder(_) => self.get(peer, &format!("v1/swarm/{root}/data")),
            Peer::File(url) if is_local(url.as_str()) => self.local_files.get(url.clone()),
            Peer::File(url) => self.files.get(url.clone()),
        };
        let range = format!("bytes={}-{}", bytes.start, bytes.end.saturating_sub(1));
        let response = sent(peer, request.header(RANGE, range), within).await?;
        let begin = format!("bytes {}-", bytes.start);
        let given = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        match given {
            _ if response.status() != StatusCode::PARTIAL_CONTENT => {
                Err(AskError::Nonsense(peer.clone(), "it does not know range requests".into()))
            }
            Some(given) if given.starts_with(&begin) => Ok(response),
            other => Err(AskError::Nonsense(peer.clone(), format!("asked for {begin}, came {other:?}"))),
        }
    }

    /// Bytes of the file at a web server; also proves that it knows range requests.
    pub(crate) async fn length(&self, peer: &Peer, root: Digest) -> Result<u64, AskError> {
        let response = self.data(peer, root, 0..1, ANSWER).await?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let length = range.and_then(|range| range.rsplit_once('/')).and_then(|(_, all)| all.parse().ok());
        length.ok_or_else(|| AskError::Nonsense(peer.clone(), "it does not say how long the file is".into()))
    }

    fn get(&self, peer: &Peer, path: &str) -> RequestBuilder {
        self.authorized(self.seeders.get(peer.at(path)))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        authorized(request, self.token.as_ref())
    }

    async fn json<T: DeserializeOwned>(
        &self,
        peer: &Peer,
        request: RequestBuilder,
    ) -> Result<(T, Option<SocketAddr>), AskError> {
        let response = checked(peer, request.send().await)?;
        let address = response.remote_addr();
        let body = bounded(peer, response, SHORT).await?;
        let value = serde_json::from_slice(&body)
            .map_err(|error| AskError::Nonsense(peer.clone(), error.to_string()))?;
        Ok((value, address))
    }
}

/// Sends `request`; the beginning of the answer must come within `within`.
async fn sent(peer: &Peer, request: RequestBuilder, within: Duration) -> Result<Response, AskError> {
    match tokio::time::timeout(within, request.send()).await {
        Ok(answer) => checked(peer, answer),
        Err(_) => Err(AskError::Slow(peer.clone(), within)),
    }
}

fn checked(peer: &Peer, answer: reqwest::Result<Response>) -> Result<Response, AskError> {
    let response = answer.map_err(|error| AskError::Silent(peer.clone(), reason(&error)))?;
    match response.status() {
        status if status.is_success() => Ok(response),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Err(AskError::Shut(peer.clone(), status))
        }
        status => {
            let pause = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let pause = pause.and_then(|value| value.parse().ok()).map(Duration::from_secs);
            Err(AskError::Refused(peer.clone(), status, pause.map(|pause| pause.min(PAUSE))))
        }
    }
}

/// The whole body, when it is no longer than `limit`; nothing may come for no longer than [`ANSWER`].
async fn bounded(peer: &Peer, mut response: Response, limit: u64) -> Result<Bytes, AskError> {
    let too_long = || AskError::Nonsense(peer.clone(), format!("an answer of more than {limit} bytes"));
    let said = response.content_length().unwrap_or(0);
    if said > limit {
        return Err(too_long());
    }
    let mut body = Vec::new();
    loop {
        let chunk = tokio::time::timeout(ANSWER, response.chunk()).await;
        let chunk = chunk.map_err(|_| AskError::Slow(peer.clone(), ANSWER))?;
        match chunk.map_err(|error| AskError::Silent(peer.clone(), reason(&error)))? {
            Some(chunk) if (body.len() + chunk.len()) as u64 > limit => return Err(too_long()),
            Some(chunk) => body.extend_from_slice(&chunk),
            None => return Ok(body.into()),
        }
    }
}

/// The innermost cause, which says what happened; the outer ones only say that something did.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
