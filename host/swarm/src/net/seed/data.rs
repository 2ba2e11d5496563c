//! Uploads: byte ranges of a model.

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
use tokio::time::timeout;

use crate::disk::error::StoreError;
use crate::disk::manifest::Manifest;
use crate::disk::store::Store;
use crate::net::rate_limit::RateLimit;
use crate::net::seed::access::address_of;
use crate::net::seed::refusal::Refusal;
use crate::net::seed::seeds::Seeds;
use crate::net::seed::state::SeedState;
use crate::net::seed::uploads::Upload;

/// Longest wait of an upload for a slot.
const UPLOAD_SLOT_TIMEOUT: Duration = Duration::from_secs(2);
/// The bytes that an upload reads in one step and holds in memory.
const READ_CHUNK_BYTES: u64 = 512 << 10;
/// The bytes that an upload offers to its reader in one step: a reader that takes this much is not stalled.
const OFFER_BYTES: usize = 64 << 10;

/// Sends one byte range, or the complete file without a `Range` header. The store must have all its pieces.
pub(crate) async fn data(
    State(state): State<SeedState>,
    Path(root): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let seed = state.seed(&root)?;
    let size = seed.store.manifest().size();
    let range = requested_range(request.headers(), size)?;
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let bytes = range.unwrap_or(0..size);
    if !has_range(&seed.store, &bytes) {
        return Err(Refusal::RangeUnavailable);
    }
    let address = address_of(&request).unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let upload = state.uploads.begin(address).ok_or(Refusal::TooManyUploads)?;
    let turn = timeout(UPLOAD_SLOT_TIMEOUT, upload.wait_for_turn()).await;
    turn.map_err(|_| Refusal::TooManyUploads)?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, (bytes.end - bytes.start).into());
    let content = [(CONTENT_TYPE, "application/octet-stream"), (ACCEPT_RANGES, "bytes")];
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1);
        headers.insert(CONTENT_RANGE, range.parse().map_err(|_| Refusal::RangeUnavailable)?);
    }
    let body = UploadBody {
        store: seed.store.clone(),
        seeds: state.seeds.clone(),
        bytes,
        chunk: Bytes::new(),
        rate_limit: state.rate_limit.clone(),
        upload,
    };
    let body = Body::from_stream(stream::try_unfold(body, UploadBody::next_offer));
    Ok((status, content, headers, body).into_response())
}

/// The requested range: `bytes=A-B` or `bytes=A-`, within the file.
fn requested_range(headers: &HeaderMap, size: u64) -> Result<Option<Range<u64>>, Refusal> {
    let Some(value) = headers.get(RANGE) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let invalid = || Refusal::InvalidRange(text.chars().take(80).collect());
    let (from, to) = text.strip_prefix("bytes=").and_then(|text| text.split_once('-')).ok_or_else(invalid)?;
    let from: u64 = from.parse().map_err(|_| invalid())?;
    let last = match to {
        "" => size.saturating_sub(1),
        to => to.parse::<u64>().map_err(|_| invalid())?,
    };
    if last < from {
        return Err(invalid());
    }
    if last >= size { Err(Refusal::RangeUnavailable) } else { Ok(Some(from..last + 1)) }
}

/// Whether the store has every piece that overlaps `bytes`.
fn has_range(store: &Store, bytes: &Range<u64>) -> bool {
    overlapping_pieces(store.manifest(), bytes).all(|piece| store.has_piece(piece))
}

fn overlapping_pieces(manifest: &Manifest, bytes: &Range<u64>) -> impl Iterator<Item = u32> + use<> {
    let pieces = manifest.pieces();
    let first = pieces.partition_point(|piece| piece.offset + piece.length <= bytes.start);
    let end = pieces.partition_point(|piece| piece.offset < bytes.end);
    (first..end).filter_map(|piece| u32::try_from(piece).ok())
}

/// The body of an upload. Dropping it frees the upload's turn.
struct UploadBody {
    store: Arc<Store>,
    seeds: Arc<Seeds>,
    /// The bytes that are not read yet.
    bytes: Range<u64>,
    /// The bytes that are read, but not offered to the reader yet.
    chunk: Bytes,
    rate_limit: Option<Arc<RateLimit>>,
    upload: Upload,
}

impl UploadBody {
    /// The next bytes for the reader. The server asks for them only after the reader took the last ones.
    async fn next_offer(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        let mut has_turn = self.upload.set_offered(false);
        if has_turn && self.chunk.is_empty() {
            self.chunk = self.next_chunk().await?;
        }
        if self.chunk.is_empty() && has_turn {
            return Ok(None);
        }
        let offer = self.chunk.split_to(self.chunk.len().min(OFFER_BYTES));
        has_turn = has_turn && self.upload.set_offered(true);
        if has_turn {
            Ok(Some((offer, self)))
        } else {
            Err(std::io::Error::other("the upload lost its turn"))
        }
    }

    /// Reads the next chunk, as fast as the rate limit allows. Empty at the end of the range.
    async fn next_chunk(&mut self) -> std::io::Result<Bytes> {
        let max = self.rate_limit.as_ref().map_or(READ_CHUNK_BYTES, |rate| rate.chunk_size(READ_CHUNK_BYTES));
        let length = (self.bytes.end - self.bytes.start).min(max);
        if length == 0 {
            return Ok(Bytes::new());
        }
        if let Some(rate_limit) = &self.rate_limit {
            rate_limit.acquire(length).await;
        }
        let (store, offset) = (self.store.clone(), self.bytes.start);
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; usize::try_from(length).unwrap_or_default()];
            store.read(offset, &mut buffer).map(|()| Bytes::from(buffer))
        });
        let chunk = read.await.map_err(std::io::Error::other)?.map_err(|error| self.on_read_error(&error))?;
        self.bytes.start += length;
        Ok(chunk)
    }

    /// Withdraws a file that changed: its other bytes may be wrong too.
    fn on_read_error(&self, error: &StoreError) -> std::io::Error {
        let withdrawn = matches!(error, StoreError::Changed(_));
        if withdrawn {
            self.seeds.remove(self.store.manifest().root());
        }
        tracing::warn!(%error, withdrawn, "a seeded file cannot be read");
        std::io::Error::other(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(text: &str, size: u64) -> Result<Option<Range<u64>>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, text.parse().unwrap());
        requested_range(&headers, size)
    }

    #[test]
    fn requested_range_accepts_single_ranges() {
        assert_eq!(requested("bytes=0-9", 10).unwrap(), Some(0..10));
        assert_eq!(requested("bytes=3-", 10).unwrap(), Some(3..10));
        assert_eq!(requested_range(&HeaderMap::new(), 10).unwrap(), None);
        assert!(matches!(requested("bytes=0-10", 10), Err(Refusal::RangeUnavailable)));
        assert!(matches!(requested("bytes=10-", 10), Err(Refusal::InvalidRange(_))));
        let wrong = [
            "bytes=-5",
            "bytes=5-3",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=a-b",
            "bytes=0-99999999999999999999",
        ];
        for text in wrong {
            assert!(matches!(requested(text, 10), Err(Refusal::InvalidRange(_))), "{text}");
        }
    }
}
