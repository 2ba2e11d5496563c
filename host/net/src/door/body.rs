//! Request bodies: type, encoding, size and time limits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{ServiceExt, service_fn};
use tower_http::decompression::RequestDecompression;

use crate::door::activity::{Activity, Phase};
use crate::door::config::{ConnectionLimits, DoorConfig};
use crate::http::body_limit::discard_body;
use crate::http::error::ApiError;

/// Lets the handler read the body of a request. Refuses bodies of another type or encoding, and bodies that are too
/// large or too slow. Requests without a body pass.
pub(crate) async fn receive(config: &DoorConfig, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let encoding = check_type(&request, config.binary_paths).and_then(|()| Encoding::of(request.headers()));
    let encoding = match encoding {
        Ok(encoding) => encoding,
        Err(refusal) => return refusal.into_response(),
    };
    if content_length(request.headers()).is_some_and(|length| length > config.max_body_bytes) {
        discard_body(request.into_body()).await;
        return ApiError::too_large(config.max_body_bytes).into_response();
    }
    let timed_out = Arc::new(AtomicBool::new(false));
    let activity = request.extensions().get().cloned();
    let request =
        request.map(|body| Body::new(TimedBody::new(body, &config.limits, activity, timed_out.clone())));
    let response = match encoding {
        Encoding::Identity => next.run(request).await,
        Encoding::Gzip => decompress(request, next).await,
    };
    if timed_out.load(Ordering::Relaxed) { ApiError::slow_body().into_response() } else { response }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A web page can send only three content types without asking first (CORS). JSON is none of them.
fn check_type(request: &Request, binary_paths: &[&str]) -> Result<(), ApiError> {
    let header =
        request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_binary = binary_paths.contains(&request.uri().path());
    let accepted = if is_binary { "application/octet-stream" } else { "application/json" };
    let is_json = essence.starts_with("application/") && essence.ends_with("+json");
    if essence == accepted || (!is_binary && is_json) {
        return Ok(());
    }
    let sent = if essence.is_empty() { "no content type".to_owned() } else { format!("'{essence}'") };
    Err(ApiError::unsupported_body(format!(
        "the body has {sent}. Send it as JSON, with curl: -H 'Content-Type: {accepted}'."
    )))
}

/// The encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Self::Identity) };
        let text = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        match text.as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            _ => Err(ApiError::unsupported_body(format!(
                "the body has the content encoding '{text}'. Send it plain, or with 'Content-Encoding: gzip'."
            ))),
        }
    }
}

/// Decompresses the body while the handler reads it. The handler's limit counts decompressed bytes.
async fn decompress(mut request: Request, next: Next) -> Response {
    // The layer knows only one of the two names.
    request.headers_mut().insert(CONTENT_ENCODING, axum::http::HeaderValue::from_static("gzip"));
    let handler = service_fn(|request: axum::http::Request<_>| {
        let next = next.clone();
        async move { Ok::<_, std::convert::Infallible>(next.run(request.map(Body::new)).await) }
    });
    match RequestDecompression::new(handler).oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => ApiError::unavailable(error.to_string()).into_response(),
    }
}

/// A request body with time limits. The time counts only while the handler waits for the client.
struct TimedBody {
    body: Body,
    total: Duration,
    idle: Duration,
    /// The end of the total time, once the client has let the handler wait.
    deadline: Option<Instant>,
    /// The start of the current wait.
    waits_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    activity: Option<Arc<Activity>>,
    timed_out: Arc<AtomicBool>,
}

impl TimedBody {
    fn new(
        body: Body,
        limits: &ConnectionLimits,
        activity: Option<Arc<Activity>>,
        timed_out: Arc<AtomicBool>,
    ) -> Self {
        let (total, idle) = (limits.body_timeout, limits.body_idle_timeout);
        Self { body, total, idle, deadline: None, waits_since: None, timer: None, activity, timed_out }
    }

    /// Waits for the client, at most until a limit.
    fn poll_limit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        if self.deadline.is_none()
            && let Some(activity) = &self.activity
        {
            activity.enter(Phase::Body);
        }
        let deadline = *self.deadline.get_or_insert(now + self.total);
        let idle_end = *self.waits_since.get_or_insert(now) + self.idle;
        let limit = deadline.min(idle_end);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(limit)));
        if timer.deadline() != limit {
            timer.as_mut().reset(limit);
        }
        timer.as_mut().poll(context)
    }

    /// The body has ended, or the handler does not read it any more.
    fn end(&mut self) {
        if let Some(activity) = self.activity.take()
            && activity.phase().0 == Phase::Body
        {
            activity.enter(Phase::Handling);
        }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            std::task::ready!(self.poll_limit(context));
            self.timed_out.store(true, Ordering::Relaxed);
            self.end();
            return Poll::Ready(Some(Err(axum::Error::new("the client was too slow"))));
        };
        self.waits_since = None;
        if frame.is_none() || self.body.is_end_stream() {
            self.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TimedBody {
    fn drop(&mut self) {
        self.end();
    }
}
