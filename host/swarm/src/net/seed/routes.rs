//! Handlers that report a seeder's models, pieces and peers.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep, timeout_at};

use crate::net::seed::access::address_of;
use crate::net::seed::refusal::Refusal;
use crate::net::seed::seeds::Seed;
use crate::net::seed::state::SeedState;
use crate::net::wire::{Announce, Have, ModelListing, PeerList, piece_runs};

/// Greatest length of an announce's body.
pub(crate) const MAX_ANNOUNCE_BYTES: usize = 4 << 10;
/// Longest wait of a long poll.
const MAX_LONG_POLL_TIME: Duration = Duration::from_secs(30);
/// Interval at which a long poll reads the store's version. Not every writer notifies the seed.
const VERSION_CHECK_INTERVAL: Duration = Duration::from_millis(250);

pub(crate) async fn list(State(state): State<SeedState>) -> Json<Vec<ModelListing>> {
    let models = state.seeds.stores().into_iter().map(|store| {
        let manifest = store.manifest();
        ModelListing {
            root: manifest.root(),
            name: manifest.name().to_owned(),
            size: manifest.size(),
            pieces: count(manifest.pieces().len()),
            have_pieces: count(store.have_pieces().len()),
        }
    });
    Json(models.collect())
}

pub(crate) async fn manifest(
    State(state): State<SeedState>,
    Path(root): Path<String>,
) -> Result<Response, Refusal> {
    let seed = state.seed(&root)?;
    Ok(([(CONTENT_TYPE, "application/json")], seed.manifest.clone()).into_response())
}

/// Answers immediately, unless `since` is the current version. Then answers after a change or after `wait_ms`.
pub(crate) async fn have(
    State(state): State<SeedState>,
    Path(root): Path<String>,
    uri: Uri,
) -> Result<Json<Have>, Refusal> {
    let seed = state.seed(&root)?;
    let (since, wait_ms) = (query_number(&uri, "since"), query_number(&uri, "wait_ms").unwrap_or(0));
    // Any other version gets an immediate answer, even a greater version from an earlier run of this seeder.
    if since == Some(seed.version())
        && let Ok(_permit) = state.long_polls.clone().try_acquire_owned()
    {
        let deadline = Instant::now() + Duration::from_millis(wait_ms).min(MAX_LONG_POLL_TIME);
        let _ = timeout_at(deadline, wait_for_change(&seed, since)).await;
    }
    // The version is read first: a piece that arrives in between is then reported twice rather than never.
    let version = seed.version();
    let have = seed.store.have_pieces();
    let complete = have.len() == seed.store.manifest().pieces().len();
    let (pieces, in_progress) = (piece_runs(&have), piece_runs(&seed.in_progress()));
    Ok(Json(Have { version, pieces, complete, in_progress, seeder: state.seeds.id().to_owned() }))
}

/// The number of the query parameter `name`.
fn query_number(uri: &Uri, name: &str) -> Option<u64> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name)?.1.parse().ok()
}

async fn wait_for_change(seed: &Seed, since: Option<u64>) {
    let mut changes = seed.subscribe();
    while Some(seed.version()) == since {
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep(VERSION_CHECK_INTERVAL) => {}
        }
    }
}

pub(crate) async fn peers(
    State(state): State<SeedState>,
    Path(root): Path<String>,
    request: Request,
) -> Result<Json<PeerList>, Refusal> {
    let seed = state.seed(&root)?;
    let address = address_of(&request);
    // An invalid body announces nothing.
    let body = axum::body::to_bytes(request.into_body(), MAX_ANNOUNCE_BYTES).await.unwrap_or_default();
    let announce = serde_json::from_slice::<Announce>(&body).unwrap_or_default();
    let port = announce.port.filter(|&port| port > 0);
    let sender = address.zip(port).map(SocketAddr::from);
    let peers = seed.peers_for(sender, address.is_some_and(|address| address.is_loopback()));
    if let Some(sender) = sender {
        seed.add_peer(sender, announce.encrypted);
    }
    Ok(Json(PeerList { peers }))
}

fn count(pieces: usize) -> u32 {
    u32::try_from(pieces).unwrap_or(u32::MAX)
}
