//! Reads replies of other machines with limits on bytes and time.
//!
//! Invariant: a [`Reply`] keeps no byte beyond `max_bytes`, and no read outlives the limits of time. Bytes are read at a
//! limited rate: a machine that sends as fast as the network carries must not take the processors from the models.

use std::time::Duration;

use axum::body::Bytes;
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::time::{Instant, sleep, timeout};

use crate::machine_client::{MachineRequest, SendError};

/// The rate at which the body of a reply is read. Text in JSON needs a small part of it.
const MAX_BYTES_PER_SECOND: f64 = (32 << 20) as f64;
/// Bytes worth this time are read at once.
const MAX_BURST: Duration = Duration::from_millis(10);

/// Limits of one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimits {
    /// The maximum length of the body in bytes.
    pub max_bytes: u64,
    /// The maximum time from the request to the first byte of the body.
    pub first_byte: Duration,
    /// The maximum time between two parts of the body.
    pub idle: Duration,
    /// The maximum time from the request to the end of the body.
    pub total: Duration,
}

impl ReplyLimits {
    /// A limit on bytes. The caller limits the time.
    #[must_use]
    pub const fn bytes(max_bytes: u64) -> Self {
        Self { max_bytes, first_byte: Duration::MAX, idle: Duration::MAX, total: Duration::MAX }
    }

    /// Limits of a reply that takes no computation.
    #[must_use]
    pub const fn quick(max_bytes: u64, total: Duration) -> Self {
        Self { max_bytes, first_byte: total, idle: total, total }
    }

    /// The time to wait for the next part, and the error after it. The request began `elapsed` ago.
    fn next_wait(&self, elapsed: Duration, started: bool) -> (Duration, ReplyError) {
        let (wait, late) = if started {
            (self.idle, ReplyError::Idle(self.idle))
        } else {
            (self.first_byte.saturating_sub(elapsed), ReplyError::Silent(self.first_byte))
        };
        let remaining = self.total.saturating_sub(elapsed);
        if remaining < wait { (remaining, ReplyError::Slow(self.total)) } else { (wait, late) }
    }
}

/// The reason why a reply cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The connection failed.
    #[error(transparent)]
    Connection(SendError),
    /// The body is longer than the limit in bytes.
    #[error("the reply has more than {0} bytes")]
    TooLong(u64),
    /// No byte of the body arrived in time.
    #[error("no reply within {0:?}")]
    Silent(Duration),
    /// The body stopped.
    #[error("the reply stopped for {0:?}")]
    Idle(Duration),
    /// The body did not end in time.
    #[error("the reply did not end within {0:?}")]
    Slow(Duration),
}

impl<E: Into<SendError>> From<E> for ReplyError {
    fn from(error: E) -> Self {
        Self::Connection(error.into())
    }
}

impl ReplyError {
    /// True when the server has not received the request.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connection(error) if error.is_connect())
    }
}

/// A reply whose body is read with limits.
#[derive(Debug)]
pub struct Reply {
    response: Response,
    limits: ReplyLimits,
    start: Instant,
    received: u64,
    pace: Pace,
}

/// Limits the rate of reads.
#[derive(Debug)]
struct Pace {
    /// The time that the bytes read until `last` take at the limited rate, as far as it has not passed.
    debt: Duration,
    last: Instant,
}

impl Pace {
    /// Waits until the next bytes can be read.
    async fn wait(&self) {
        let excess = self.debt.saturating_sub(self.last.elapsed()).saturating_sub(MAX_BURST);
        if !excess.is_zero() {
            sleep(excess).await;
        }
    }

    fn add(&mut self, bytes: usize) {
        let time = Duration::from_secs_f64(bytes as f64 / MAX_BYTES_PER_SECOND);
        self.debt = self.debt.saturating_sub(self.last.elapsed()) + time;
        self.last = Instant::now();
    }
}

impl Reply {
    /// Sends `request` and waits for the headers of the reply.
    ///
    /// # Errors
    ///
    /// [`ReplyError`] if the connection fails or no header arrives in time.
    pub async fn send(request: RequestBuilder, limits: ReplyLimits) -> Result<Self, ReplyError> {
        Self::wait(request.send(), limits).await
    }

    /// As [`Self::send`], for a request to a machine of tightwad.
    ///
    /// # Errors
    ///
    /// [`ReplyError`] if the connection fails or no header arrives in time.
    pub async fn send_to_machine(request: MachineRequest, limits: ReplyLimits) -> Result<Self, ReplyError> {
        Self::wait(request.send(), limits).await
    }

    async fn wait<E: Into<SendError>>(
        response: impl Future<Output = Result<Response, E>>,
        limits: ReplyLimits,
    ) -> Result<Self, ReplyError> {
        let start = Instant::now();
        let (wait, late) = limits.next_wait(Duration::ZERO, false);
        let response = timeout(wait, response).await.map_err(|_| late)??;
        let pace = Pace { debt: Duration::ZERO, last: start };
        Ok(Self { response, limits, start, received: 0, pace })
    }

    /// The status of the reply.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The next part of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// [`ReplyError`] if the connection fails or a limit is reached.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ReplyError> {
        self.pace.wait().await;
        let (wait, late) = self.limits.next_wait(self.start.elapsed(), self.received > 0);
        let chunk = timeout(wait, self.response.chunk()).await.map_err(|_| late)??;
        let bytes = chunk.as_ref().map_or(0, Bytes::len);
        self.received += bytes as u64;
        self.pace.add(bytes);
        if self.received > self.limits.max_bytes {
            Err(ReplyError::TooLong(self.limits.max_bytes))
        } else {
            Ok(chunk)
        }
    }

    /// The beginning of the body, such as of an error: at most `max_bytes` that arrive within `wait`.
    pub async fn beginning(mut self, max_bytes: usize, wait: Duration) -> Vec<u8> {
        let mut body = Vec::new();
        let read = async {
            while body.len() < max_bytes
                && let Ok(Some(chunk)) = self.chunk().await
            {
                body.extend_from_slice(&chunk);
            }
        };
        // A body that ends late is cut as well.
        let _ = timeout(wait, read).await;
        body.truncate(max_bytes);
        body
    }

    /// The whole body.
    ///
    /// # Errors
    ///
    /// [`ReplyError`] if the connection fails or a limit is reached.
    pub async fn bytes(mut self) -> Result<Vec<u8>, ReplyError> {
        if self.response.content_length().is_some_and(|length| length > self.limits.max_bytes) {
            return Err(ReplyError::TooLong(self.limits.max_bytes));
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Body;
    use futures_util::{StreamExt, stream};
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::machine_client;
    use crate::lines::{LineError, Lines};

    const LIMITS: ReplyLimits = ReplyLimits {
        max_bytes: 1000,
        first_byte: Duration::from_secs(600),
        idle: Duration::from_secs(120),
        total: Duration::from_secs(3600),
    };

    /// Requests a body that repeats `part` after each `interval` and never ends.
    async fn endless(
        part: &'static str,
        interval: Duration,
        limits: ReplyLimits,
    ) -> Result<Reply, ReplyError> {
        let parts = move || {
            stream::repeat(part).then(move |part| async move {
                tokio::time::sleep(interval).await;
                Ok::<_, Infallible>(part)
            })
        };
        serve(axum::Router::new().fallback(move || async move { Body::from_stream(parts()) }), limits).await
    }

    async fn serve(router: axum::Router, limits: ReplyLimits) -> Result<Reply, ReplyError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Reply::send(machine_client().build().unwrap().get(url), limits).await
    }

    #[tokio::test]
    async fn endless_body_is_refused() {
        let reply = endless("0123456789", Duration::ZERO, LIMITS).await.unwrap();
        assert!(matches!(reply.bytes().await, Err(ReplyError::TooLong(1000))));
    }

    #[tokio::test]
    async fn beginning_of_an_endless_body_is_read() {
        let reply = endless("0123456789", Duration::ZERO, LIMITS).await.unwrap();
        assert_eq!(reply.beginning(12, LIMITS.idle).await, b"012345678901");
        let reply = endless("x", Duration::from_secs(3600), LIMITS).await.unwrap();
        assert_eq!(reply.beginning(12, Duration::from_millis(20)).await, b"");
    }

    #[tokio::test]
    async fn bytes_are_read_at_a_limited_rate() {
        const BYTES: usize = 4 << 20;
        let router = axum::Router::new().fallback(|| async { "x".repeat(BYTES) });
        let start = Instant::now();
        let reply = serve(router, ReplyLimits { max_bytes: BYTES as u64, ..LIMITS }).await.unwrap();
        assert_eq!(reply.bytes().await.unwrap().len(), BYTES);
        let least = Duration::from_secs_f64(BYTES as f64 / MAX_BYTES_PER_SECOND) / 2;
        assert!(start.elapsed() > least, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn announced_length_above_the_limit_is_refused() {
        let router = axum::Router::new().fallback(|| async { "x".repeat(1001) });
        let reply = serve(router, LIMITS).await.unwrap();
        assert!(matches!(reply.bytes().await, Err(ReplyError::TooLong(1000))));
    }

    #[tokio::test]
    async fn silent_server_fails_after_the_first_byte_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let limits = ReplyLimits { first_byte: Duration::from_millis(50), ..LIMITS };
        let error = Reply::send(machine_client().build().unwrap().get(url), limits).await.unwrap_err();
        assert_eq!(error.to_string(), "no reply within 50ms");
    }

    #[tokio::test]
    async fn body_that_stops_fails_after_the_idle_limit() {
        let parts = || stream::iter([Ok::<_, Infallible>("x")]).chain(stream::pending());
        let router = axum::Router::new().fallback(move || async move { Body::from_stream(parts()) });
        let limits = ReplyLimits { idle: Duration::from_millis(50), ..LIMITS };
        let error = serve(router, limits).await.unwrap().bytes().await.unwrap_err();
        assert_eq!(error.to_string(), "the reply stopped for 50ms");
    }

    #[tokio::test]
    async fn dripping_body_fails_after_the_total_limit() {
        let limits = ReplyLimits { max_bytes: u64::MAX, total: Duration::from_millis(50), ..LIMITS };
        let error = match endless("x", Duration::from_millis(1), limits).await {
            Ok(reply) => reply.bytes().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.to_string(), "the reply did not end within 50ms");
    }

    #[tokio::test]
    async fn lines_are_split_and_limited() {
        let body = "first\r\n\nsecond\nlast is cut";
        let router = axum::Router::new().fallback(move || async move { body });
        let reply = serve(router.clone(), LIMITS).await.unwrap();
        let mut lines = Lines::new(reply, 100);
        for expected in ["first", "", "second"] {
            assert_eq!(lines.next().await.unwrap().unwrap(), expected.as_bytes());
        }
        assert!(matches!(lines.next().await, Err(LineError::Truncated)));
        let mut short = Lines::new(serve(router, LIMITS).await.unwrap(), 6);
        for _ in 0..3 {
            assert!(short.next().await.is_ok());
        }
        assert!(matches!(short.next().await, Err(LineError::TooLong(6))));
    }

    #[tokio::test]
    async fn line_without_an_end_is_refused() {
        let reply = endless("xxxxxxxxxx", Duration::ZERO, LIMITS).await.unwrap();
        assert!(matches!(Lines::new(reply, 64).next().await, Err(LineError::TooLong(64))));
    }
}
