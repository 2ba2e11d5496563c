//! The client for other machines of tightwad.
//!
//! The scheme of an address decides. `tightwad://` is encrypted by this crate, and the token is proved when the connection
//! opens; it is never sent. `http://` and `https://` go through reqwest, and requests carry the token.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use reqwest::header::{HOST, HeaderName};
use reqwest::{Body, Method, Response};
use serde::Serialize;
use tightwad_core::Token;
use tokio::time::timeout;

use crate::client::{authorized, machine_client};
use crate::server_url::ServerUrl;
use crate::tls::MACHINE_SCHEME;
use crate::tls::connector::{ConnectError, Connector};
use crate::tls::identity::IdentityError;
use crate::tls::trust::MachineTrust;

/// The time after which the client closes an idle connection. Servers close theirs after 120 s.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Sends requests to machines of tightwad. Clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct MachineClient {
    http: reqwest::Client,
    /// `None`: a client without a key, for plain HTTP only.
    encrypted: Option<HyperClient<Connector, Body>>,
    token: Option<Token>,
}

/// A request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A plain request failed.
    #[error(transparent)]
    Http(reqwest::Error),
    /// An encrypted request failed.
    #[error(transparent)]
    Encrypted(#[from] hyper_util::client::legacy::Error),
    /// The request is not valid.
    #[error("the request is not valid: {0}")]
    Invalid(String),
    /// This client has no key.
    #[error("this machine has no key: set XDG_DATA_HOME or HOME")]
    NoKey,
    /// No headers arrived in time.
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
}

impl From<reqwest::Error> for SendError {
    /// Drops the URL, which an error message must not repeat to a client.
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

impl SendError {
    /// True when the server has not received the request.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        match self {
            Self::Http(error) => error.is_connect(),
            Self::Encrypted(error) => error.is_connect(),
            Self::Invalid(_) | Self::NoKey => true,
            Self::TimedOut(_) => false,
        }
    }

    /// True when another attempt fails as well: the machine has another key or another token.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let Self::Encrypted(error) = self else { return false };
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<ConnectError>() {
                return error.is_refusal();
            }
            source = error.source();
        }
        false
    }
}

/// No client can be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The HTTP library's error.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// An encrypted client needs a key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl MachineClient {
    /// A client that opens a connection within `connect_timeout`. Plain requests carry `token`.
    ///
    /// # Errors
    ///
    /// The HTTP library's.
    pub fn new(
        trust: Option<MachineTrust>,
        token: Option<Token>,
        connect_timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        let http = machine_client()
            .connect_timeout(connect_timeout)
            .tcp_keepalive(Duration::from_secs(15))
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build()?;
        let encrypted = trust.map(|trust| {
            HyperClient::builder(TokioExecutor::new())
                .pool_idle_timeout(POOL_IDLE_TIMEOUT)
                .pool_timer(TokioTimer::new())
                .build(Connector::new(Arc::new(trust), connect_timeout))
        });
        Ok(Self { http, encrypted, token })
    }

    /// A request to `url`.
    #[must_use]
    pub fn request(&self, method: Method, url: &str) -> MachineRequest {
        let is_encrypted = url.split_once("://").is_some_and(|(scheme, _)| scheme == MACHINE_SCHEME);
        let request = self.http.request(method, url);
        let request = MachineRequest { client: self.clone(), request, is_encrypted, timeout: None };
        request.with_token(self.token.as_ref())
    }
}

/// One machine, with the client that reaches it. Clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct RemoteMachine {
    /// The address.
    pub url: ServerUrl,
    client: MachineClient,
}

impl RemoteMachine {
    /// The machine at `url`. The client proves `token`, or sends it over a plain connection. The client of an encrypted
    /// machine uses this user's key.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if this machine has no key, or the HTTP library's.
    pub fn new(url: ServerUrl, token: Option<Token>, connect_timeout: Duration) -> Result<Self, ClientError> {
        let client = if url.is_encrypted() {
            let mut trust = MachineTrust::of_user(token)?;
            if let Some(fingerprint) = url.fingerprint() {
                trust.pinned.insert(url.authority().to_owned(), fingerprint);
            }
            MachineClient::new(Some(trust), None, connect_timeout)?
        } else {
            MachineClient::new(None, token, connect_timeout)?
        };
        Ok(Self { url, client })
    }

    /// A request to `path`, which begins with `/`.
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> MachineRequest {
        let request = self.client.request(method, &format!("{}{path}", self.url.base()));
        match self.url.host_header() {
            // The interface has a meaning on this machine only (RFC 6874, 3).
            Some(host) => request.header(HOST, host),
            None => request,
        }
    }
}

/// A request to a machine.
#[derive(Debug)]
pub struct MachineRequest {
    client: MachineClient,
    request: reqwest::RequestBuilder,
    is_encrypted: bool,
    timeout: Option<Duration>,
}

impl MachineRequest {
    /// Adds `token` to a plain request. An encrypted connection has proved its token already.
    #[must_use]
    pub fn with_token(mut self, token: Option<&Token>) -> Self {
        if !self.is_encrypted {
            self.request = authorized(self.request, token);
        }
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.request = self.request.body(body);
        self
    }

    /// Sets the body to `value` as JSON.
    #[must_use]
    pub fn json(mut self, value: &impl Serialize) -> Self {
        self.request = self.request.json(value);
        self
    }

    /// Sets the time until the headers of the reply.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends the request and waits for the headers of the reply.
    ///
    /// # Errors
    ///
    /// [`SendError`] if no headers arrive.
    pub async fn send(self) -> Result<Response, SendError> {
        match self.timeout {
            None => send(&self.client, self.request).await,
            Some(limit) => {
                let sent = timeout(limit, send(&self.client, self.request)).await;
                sent.map_err(|_| SendError::TimedOut(limit))?
            }
        }
    }
}

async fn send(client: &MachineClient, request: reqwest::RequestBuilder) -> Result<Response, SendError> {
    let request = request.build()?;
    if request.url().scheme() != MACHINE_SCHEME {
        return Ok(client.http.execute(request).await?);
    }
    let encrypted = client.encrypted.as_ref().ok_or(SendError::NoKey)?;
    let request = hyper::Request::<Body>::try_from(request)?;
    let response = encrypted.request(request).await?;
    Ok(response.map(Body::wrap).into())
}
