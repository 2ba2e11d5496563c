//! Admission of request bodies, before they are read.
//!
//! Invariant: the bodies of all requests in progress have together at most the bytes of the two reserves. A request
//! holds its share until its response ends, because its conversation stays in memory until then.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures_util::StreamExt;
use tightwad_net::http::{ApiError, MAX_BODY_BYTES, discard_body};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The largest body that uses the reserve of small bodies. Large bodies cannot delay small ones.
pub(crate) const MAX_SMALL_BODY_BYTES: usize = 256 << 10;
/// The bytes of all small bodies together.
const SMALL_BODIES_BYTES: usize = 64 << 20;
/// The bytes of all large bodies together. Parsed JSON can take seven times as much memory.
const LARGE_BODIES_BYTES: usize = 64 << 20;
/// The time that a request waits for its share.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The reserves of bytes for bodies.
pub(crate) struct Admission {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// Large bodies are parsed one at a time, so that models keep the other processors.
    parser: Arc<Semaphore>,
    timeout: Duration,
}

/// A body in memory.
pub(crate) struct AdmittedBody {
    pub bytes: Vec<u8>,
    pub share: BodyShare,
}

/// The share of a request in a reserve. Dropping it returns the share.
pub(crate) struct BodyShare(OwnedSemaphorePermit);

impl Default for Admission {
    fn default() -> Self {
        Self::new(SMALL_BODIES_BYTES, LARGE_BODIES_BYTES, ADMISSION_TIMEOUT)
    }
}

impl Admission {
    pub(crate) fn new(small_bytes: usize, large_bytes: usize, timeout: Duration) -> Self {
        let reserve = |bytes| Arc::new(Semaphore::new(bytes));
        Self { small: reserve(small_bytes), large: reserve(large_bytes), parser: reserve(1), timeout }
    }

    /// Waits for a share and reads `body`. A body of unknown length takes the share of the largest small body, and then
    /// of the largest body, until its end.
    ///
    /// # Errors
    ///
    /// 413 for a body above the limit, 429 without a share in time, 400 if the body does not arrive.
    pub(crate) async fn read(&self, body: Body) -> Result<AdmittedBody, ApiError> {
        let announced = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let mut share = match self.acquire(announced.unwrap_or(MAX_SMALL_BODY_BYTES)).await {
            Ok(share) => share,
            Err(error) => {
                discard_body(body).await;
                return Err(error);
            }
        };
        let mut bytes = Vec::with_capacity(announced.unwrap_or(0));
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk
                .map_err(|error| ApiError::invalid(None, format!("the body did not arrive: {error}")))?;
            let length = bytes.len() + chunk.len();
            if length > share.bytes() {
                // Without the small share: a request must not wait while it holds what another one waits for.
                drop(share);
                share = self.acquire(MAX_BODY_BYTES).await?;
            }
            if length > MAX_BODY_BYTES {
                return Err(ApiError::too_large(MAX_BODY_BYTES));
            }
            bytes.extend_from_slice(&chunk);
        }
        share.shrink(bytes.len());
        Ok(AdmittedBody { bytes, share })
    }

    /// Runs `parse` on a body. Only the parsing of a small body runs on the caller's thread.
    ///
    /// # Errors
    ///
    /// 503 if `parse` panics.
    pub(crate) async fn parse<T: Send + 'static>(
        &self,
        body: AdmittedBody,
        parse: impl FnOnce(Vec<u8>) -> T + Send + 'static,
    ) -> Result<(T, BodyShare), ApiError> {
        let AdmittedBody { bytes, share } = body;
        if bytes.len() <= MAX_SMALL_BODY_BYTES {
            return Ok((parse(bytes), share));
        }
        let turn = self.parser.clone().acquire_owned().await;
        let work = move || {
            // The thread holds the turn and the share even after the client has disconnected.
            let _turn = turn;
            (parse(bytes), share)
        };
        let parsed = tokio::task::spawn_blocking(work).await;
        parsed.map_err(|_| ApiError::unavailable("the server failed to parse the body; see its log"))
    }

    async fn acquire(&self, length: usize) -> Result<BodyShare, ApiError> {
        if length > MAX_BODY_BYTES {
            return Err(ApiError::too_large(MAX_BODY_BYTES));
        }
        let reserve = if length <= MAX_SMALL_BODY_BYTES { &self.small } else { &self.large };
        let permits = u32::try_from(length.max(1)).unwrap_or(u32::MAX);
        let permit = reserve.clone().acquire_many_owned(permits);
        match tokio::time::timeout(self.timeout, permit).await {
            Ok(Ok(permit)) => Ok(BodyShare(permit)),
            _ => Err(ApiError::too_many_requests(format!(
                "the server has no memory for a body of {length} bytes: other requests hold it. Try again later"
            ))),
        }
    }
}

impl BodyShare {
    /// The bytes of the body.
    pub(crate) fn bytes(&self) -> usize {
        self.0.num_permits()
    }

    /// Returns the part of the share above `length` bytes.
    fn shrink(&mut self, length: usize) {
        let excess = self.bytes().saturating_sub(length.max(1));
        drop(self.0.split(excess));
    }
}
