//! The limit on request bodies.

use std::time::Duration;

use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use crate::http::error::ApiError;

/// The largest request body that a server reads.
pub const MAX_BODY_BYTES: usize = 10 << 20;
/// The part of a larger body that the server reads and discards. Otherwise, a client that still writes would
/// see a broken connection instead of the 413.
const MAX_DISCARDED_BYTES: usize = 64 << 20;
/// The time limit for discarding a body that is too large.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Replies 413 to a request whose `Content-Length` is above the limit.
pub async fn refuse_large_body(request: Request, next: Next) -> Response {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_none_or(|length: usize| length <= MAX_BODY_BYTES) {
        return next.run(request).await;
    }
    let mut body = request.into_body().into_data_stream();
    let discard = async {
        let mut discarded = 0;
        while discarded < MAX_DISCARDED_BYTES
            && let Some(Ok(chunk)) = body.next().await
        {
            discarded += chunk.len();
        }
    };
    // A client that needs more time sees a broken connection.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, discard).await;
    ApiError::too_large(MAX_BODY_BYTES).into_response()
}
