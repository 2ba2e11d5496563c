//! The limit on request bodies.

use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt;

/// The largest request body that a server reads.
pub const MAX_BODY_BYTES: usize = 10 << 20;
/// The part of a refused body that the server reads and discards. Otherwise, a client that still writes would see a
/// broken connection instead of the reply.
const MAX_DISCARDED_BYTES: usize = 64 << 20;
/// The time limit for discarding a refused body.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads and discards `body`, so that a client that still writes can read an early reply.
pub async fn discard_body(body: Body) {
    let mut body = body.into_data_stream();
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
}
