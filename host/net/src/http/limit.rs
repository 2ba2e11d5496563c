//! Bodies that are too large.

use std::time::Duration;

use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use crate::http::error::ApiError;

/// Largest body, in bytes.
pub const BODY_LIMIT: usize = 10 << 20;
/// How much of a larger one is read and thrown away: a client that is still writing when the answer
/// comes would see a broken connection instead of it.
const DISCARDED: usize = 64 << 20;
/// For how long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers 413 to a body that says itself that it is too large.
pub async fn refuse_large(request: Request, next: Next) -> Response {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_none_or(|length: usize| length <= BODY_LIMIT) {
        return next.run(request).await;
    }
    let mut body = request.into_body().into_data_stream();
    let discard = async {
        let mut read = 0;
        while read < DISCARDED
            && let Some(Ok(piece)) = body.next().await
        {
            read += piece.len();
        }
    };
    // Whoever is slower than that gets a broken connection after all.
    let _ = tokio::time::timeout(PATIENCE, discard).await;
    ApiError::too_large(BODY_LIMIT).into_response()
}
