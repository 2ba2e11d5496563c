//! What a seeder tells of its models.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep, timeout_at};

use crate::net::seed::access::address_of;
use crate::net::seed::refusal::Refusal;
use crate::net::seed::seeds::Seed;
use crate::net::seed::state::SeedState;
use crate::net::wire::{Announce, Have, Known, Listed, runs};

/// Longest body of a question, in bytes.
pub(crate) const MAX_QUESTION_BYTES: usize = 4 << 10;
/// Longest wait for news.
const WAIT: Duration = Duration::from_secs(30);
/// How often a store is looked at that somebody fills without saying so.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) async fn list(State(state): State<SeedState>) -> Json<Vec<Listed>> {
    let listed = state.seeds.stores().into_iter().map(|store| {
        let manifest = store.manifest();
        Listed {
            root: manifest.root(),
            name: manifest.name().to_owned(),
            size: manifest.size(),
            pieces: count(manifest.pieces().len()),
            had: count(store.had().len()),
        }
    });
    Json(listed.collect())
}

pub(crate) async fn manifest(
    State(state): State<SeedState>,
    Path(root): Path<String>,
) -> Result<Response, Refusal> {
    let seed = state.seed(&root)?;
    Ok(([(CONTENT_TYPE, "application/json")], seed.manifest.clone()).into_response())
}

/// Answers at once, unless the asker knows the state: then when it changes, or when the wait is over.
pub(crate) async fn have(
    State(state): State<SeedState>,
    Path(root): Path<String>,
    uri: Uri,
) -> Result<Json<Have>, Refusal> {
    let seed = state.seed(&root)?;
    let (since, wait) = (asked(&uri, "since"), asked(&uri, "wait_ms").unwrap_or(0));
    // A number that is greater than the store's is from before this seeder started again.
    if since == Some(seed.version())
        && let Ok(_place) = state.waiting.clone().try_acquire_owned()
    {
        let until = Instant::now() + Duration::from_millis(wait).min(WAIT);
        let _ = timeout_at(until, news(&seed, since)).await;
    }
    // The number first: pieces that come in between are told twice rather than never.
    let version = seed.version();
    let had = seed.store.had();
    let whole = had.len() == seed.store.manifest().pieces().len();
    let (pieces, coming) = (runs(&had), runs(&seed.coming()));
    Ok(Json(Have { version, pieces, whole, coming, seeder: state.seeds.name().to_owned() }))
}

/// The number that is called `name` in the question.
fn asked(uri: &Uri, name: &str) -> Option<u64> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name)?.1.parse().ok()
}

async fn news(seed: &Seed, since: Option<u64>) {
    let mut news = seed.news();
    while Some(seed.version()) == since {
        tokio::select! {
            _ = news.changed() => {}
            () = sleep(LOOK) => {}
        }
    }
}

pub(crate) async fn peers(
    State(state): State<SeedState>,
    Path(root): Path<String>,
    request: Request,
) -> Result<Json<Known>, Refusal> {
    let seed = state.seed(&root)?;
    let address = address_of(&request);
    let body = axum::body::to_bytes(request.into_body(), MAX_QUESTION_BYTES).await.unwrap_or_default();
    let asker = address.zip(port_of(&body)).map(|(address, port)| url(address, port));
    let peers = seed.others(asker.as_deref(), address.is_some_and(|address| address.is_loopback()));
    if let Some(asker) = asker {
        seed.know(&asker);
    }
    Ok(Json(Known { peers }))
}

/// A body that makes no sense announces nothing.
fn port_of(body: &Bytes) -> Option<u16> {
    let announce: Announce = serde_json::from_slice(body).ok()?;
    announce.port.filter(|&port| port > 0)
}

fn url(address: IpAddr, port: u16) -> String {
    format!("http://{}", SocketAddr::new(address, port))
}

fn count(pieces: usize) -> u32 {
    u32::try_from(pieces).unwrap_or(u32::MAX)
}
