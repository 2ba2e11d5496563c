//! Bytes of a model.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::disk::manifest::Manifest;
use crate::disk::store::Store;
use crate::net::limit::RateLimit;
use crate::net::seed::access::address_of;
use crate::net::seed::refusal::Refusal;
use crate::net::seed::state::SeedState;
use crate::net::seed::uploads::Upload;

/// How long an upload waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes that are read at once: what an upload holds in memory.
const READ: u64 = 512 << 10;

/// Sends one range of bytes, all of which must be had; the whole file when no range is named.
pub(crate) async fn data(
    State(state): State<SeedState>,
    Path(root): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let seed = state.seed(&root)?;
    let size = seed.store.manifest().size();
    let ranged = range(request.headers(), size)?;
    let status = if ranged.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let bytes = ranged.unwrap_or(0..size);
    if !had(&seed.store, &bytes) {
        return Err(Refusal::NotHad);
    }
    let address = address_of(&request).unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let upload = state.uploads.begin(address).ok_or(Refusal::Busy)?;
    let turn = timeout(PATIENCE, state.turns.clone().acquire_owned()).await;
    let turn = turn.ok().and_then(Result::ok).ok_or(Refusal::Busy)?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, (bytes.end - bytes.start).into());
    let typed = [(CONTENT_TYPE, "application/octet-stream"), (ACCEPT_RANGES, "bytes")];
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1);
        headers.insert(CONTENT_RANGE, range.parse().map_err(|_| Refusal::NotHad)?);
    }
    let sending = Sending {
        store: seed.store.clone(),
        bytes,
        limit: state.limit.clone(),
        _upload: upload,
        _turn: turn,
    };
    let body = Body::from_stream(stream::try_unfold(sending, Sending::next));
    Ok((status, typed, headers, body).into_response())
}

/// The one range that is asked for: `bytes=A-B` or `bytes=A-`, within the file.
fn range(headers: &HeaderMap, size: u64) -> Result<Option<Range<u64>>, Refusal> {
    let Some(value) = headers.get(RANGE) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let wrong = || Refusal::NoRange(text.chars().take(80).collect());
    let (from, to) = text.strip_prefix("bytes=").and_then(|text| text.split_once('-')).ok_or_else(wrong)?;
    let from: u64 = from.parse().map_err(|_| wrong())?;
    let last = match to {
        "" => size.saturating_sub(1),
        to => to.parse::<u64>().map_err(|_| wrong())?,
    };
    if last < from {
        return Err(wrong());
    }
    if last >= size { Err(Refusal::NotHad) } else { Ok(Some(from..last + 1)) }
}

/// True when every piece that `bytes` touches is had.
fn had(store: &Store, bytes: &Range<u64>) -> bool {
    touched(store.manifest(), bytes).all(|piece| store.has(piece))
}

fn touched(manifest: &Manifest, bytes: &Range<u64>) -> impl Iterator<Item = u32> + use<> {
    let pieces = manifest.pieces();
    let first = pieces.partition_point(|piece| piece.offset + piece.length <= bytes.start);
    let end = pieces.partition_point(|piece| piece.offset < bytes.end);
    (first..end).filter_map(|piece| u32::try_from(piece).ok())
}

/// An answer on its way.
struct Sending {
    store: Arc<Store>,
    bytes: Range<u64>,
    limit: Option<Arc<RateLimit>>,
    _upload: Upload,
    _turn: OwnedSemaphorePermit,
}

impl Sending {
    /// The next bytes: read only when the ones before have left.
    async fn next(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        let left = self.bytes.end - self.bytes.start;
        if left == 0 {
            return Ok(None);
        }
        let most = self.limit.as_ref().map_or(READ, |limit| limit.portion(READ));
        let length = left.min(most);
        if let Some(limit) = &self.limit {
            limit.take(length).await;
        }
        let (store, offset) = (self.store.clone(), self.bytes.start);
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; usize::try_from(length).unwrap_or_default()];
            store.read(offset, &mut buffer).map(|()| Bytes::from(buffer))
        });
        let bytes = read.await.map_err(std::io::Error::other)?.map_err(|error| {
            tracing::warn!(%error, "what is seeded cannot be read");
            std::io::Error::other(error.to_string())
        })?;
        self.bytes.start += length;
        Ok(Some((bytes, self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str, size: u64) -> Result<Option<Range<u64>>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, text.parse().unwrap());
        range(&headers, size)
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(asked("bytes=0-9", 10).unwrap(), Some(0..10));
        assert_eq!(asked("bytes=3-", 10).unwrap(), Some(3..10));
        assert_eq!(range(&HeaderMap::new(), 10).unwrap(), None);
        assert!(matches!(asked("bytes=0-10", 10), Err(Refusal::NotHad)));
        assert!(matches!(asked("bytes=10-", 10), Err(Refusal::NoRange(_))));
        let wrong = [
            "bytes=-5",
            "bytes=5-3",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=a-b",
            "bytes=0-99999999999999999999",
        ];
        for text in wrong {
            assert!(matches!(asked(text, 10), Err(Refusal::NoRange(_))), "{text}");
        }
    }
}
