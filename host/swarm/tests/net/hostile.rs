//! Malicious peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tightwad_swarm::net::{RateLimit, SeedState, Seeds, fetch_manifest};
use tightwad_swarm::{Event, Fault};
use tokio::net::TcpListener;

use super::pickers::InOrder;
use super::support::{
    Lab, MIB, client, link_to, peer, pull, pull_with, run, seeder, seeder_of, seeds, short_timeouts,
};

/// A malicious seeder's replies to requests for data.
#[derive(Clone, Copy)]
enum Behavior {
    /// Wrong bytes.
    Garbage,
    /// Wrong bytes, four times as many as requested.
    Flood,
    /// 416, although the seeder claims to have all pieces.
    Nothing,
    /// Another range than the requested one.
    WrongRange,
}

#[derive(Clone)]
struct MaliciousSeeder {
    behavior: Behavior,
    requests: Arc<AtomicU64>,
    exchanged: Arc<[String]>,
}

/// Starts a malicious seeder; returns its address, and the counter of its data requests.
async fn malicious_seeder(behavior: Behavior, exchanged: &[String]) -> (SocketAddr, Arc<AtomicU64>) {
    let requests = Arc::<AtomicU64>::default();
    let state = MaliciousSeeder { behavior, requests: requests.clone(), exchanged: exchanged.into() };
    let routes = Router::new()
        .route("/v1/swarm/{root}/have", get(have))
        .route("/v1/swarm/{root}/peers", post(peers))
        .route("/v1/swarm/{root}/data", get(data))
        .with_state(state);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, routes).await });
    (address, requests)
}

async fn have() -> Json<Value> {
    let pieces = [(0, 4_000_000_000_u32), (7, 3), (1, 2)];
    Json(json!({ "version": 1, "pieces": pieces, "complete": true, "seeder": "x" }))
}

async fn peers(State(state): State<MaliciousSeeder>) -> Json<Value> {
    Json(json!({ "peers": &state.exchanged[..] }))
}

async fn data(State(state): State<MaliciousSeeder>, headers: HeaderMap) -> Response {
    state.requests.fetch_add(1, Ordering::Relaxed);
    let range = headers[RANGE].to_str().unwrap().trim_start_matches("bytes=");
    let (from, to) = range.split_once('-').unwrap();
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    let length = usize::try_from(to - from + 1).unwrap();
    let (begin, length) = match state.behavior {
        Behavior::Nothing => return StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        Behavior::Garbage => (from, length),
        Behavior::Flood => (from, 4 * length),
        Behavior::WrongRange => (from + 1, length),
    };
    let headers = [(CONTENT_RANGE, format!("bytes {begin}-{to}/*"))];
    (StatusCode::PARTIAL_CONTENT, headers, Body::from(vec![0x5a; length])).into_response()
}

/// Starts an honest seeder, slow enough that other peers get requests too.
async fn honest_seeder(lab: &Lab) -> SocketAddr {
    let limit = RateLimit::new(16 * MIB);
    seeder(SeedState::new(seeds(lab.complete())).rate_limit(Some(Arc::new(limit)))).await
}

#[tokio::test]
async fn peer_is_banned_at_its_first_corrupt_block() {
    for behavior in [Behavior::Garbage, Behavior::Flood] {
        let lab = Lab::new(12, 4 * MIB);
        let (malicious, requests) = malicious_seeder(behavior, &[]).await;
        let honest = honest_seeder(&lab).await;
        let (picker, log) = InOrder::logged();
        let summary = run(pull_with(lab.empty("b"), &[malicious, honest], picker)).await.unwrap();
        assert!(lab.is_same(&lab.path("b")));
        assert_eq!(summary.banned_peers, [peer(malicious)]);
        assert_eq!(summary.bytes_by_peer, [(peer(honest), lab.manifest.size())]);
        // At most the requests that were in flight.
        assert!((1..=4).contains(&requests.load(Ordering::Relaxed)), "{requests:?}");
        let log = log.lock().unwrap();
        let is_corrupt = |event: &Event| matches!(event, Event::FetchEnded(result) if result.fault == Some(Fault::Corrupt));
        let at = log.iter().position(is_corrupt).expect("the picker receives the fault");
        assert!(log[at..].iter().any(|event| matches!(event, Event::Left(_))));
    }
}

#[tokio::test]
async fn banned_peer_stays_banned_when_another_peer_names_it() {
    let lab = Lab::new(8, MIB);
    let (malicious, requests) = malicious_seeder(Behavior::Garbage, &[]).await;
    let seeds = seeds(lab.complete());
    seeds.add_peer(lab.manifest.root(), &format!("http://{malicious}"));
    let limit = Some(Arc::new(RateLimit::new(8 * MIB)));
    let honest = seeder(SeedState::new(seeds).rate_limit(limit)).await;
    let summary = run(pull(lab.empty("b"), &[malicious, honest])).await.unwrap();
    assert_eq!(summary.banned_peers, [peer(malicious)]);
    assert!(requests.load(Ordering::Relaxed) <= 4);
}

#[tokio::test]
async fn flipped_bits_ban_the_peer() {
    let lab = Lab::new(16, 4 * MIB);
    let proxy = link_to(lab.complete()).await;
    proxy.faults().corrupt_every(40);
    let honest = honest_seeder(&lab).await;
    let summary = run(pull(lab.empty("b"), &[proxy.address(), honest])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert_eq!(summary.banned_peers, [peer(proxy.address())], "{summary:?}");
    assert!(summary.corrupt_blocks >= 1);
}

#[tokio::test]
async fn peer_with_false_claims_does_not_delay_the_pull() {
    for behavior in [Behavior::Nothing, Behavior::WrongRange] {
        let lab = Lab::new(6, MIB);
        let (malicious, _) = malicious_seeder(behavior, &[]).await;
        let honest = honest_seeder(&lab).await;
        let summary = run(pull(lab.empty("b"), &[malicious, honest])).await.unwrap();
        assert!(lab.is_same(&lab.path("b")));
        assert!(summary.banned_peers.is_empty() && summary.wasted_bytes == 0, "{summary:?}");
    }
}

#[tokio::test]
async fn pull_fails_when_all_peers_are_malicious() {
    let lab = Lab::new(2, MIB);
    let (malicious, _) = malicious_seeder(Behavior::Garbage, &[]).await;
    let error = run(pull(lab.empty("b"), &[malicious])).await.unwrap_err().to_string();
    assert!(error.contains("2 pieces of model") && error.contains("sent wrong data"), "{error}");
    let (malicious, _) = malicious_seeder(Behavior::Nothing, &[]).await;
    let mut failing = pull(lab.reopen("b").await, &[malicious]);
    failing.limits = short_timeouts(10_000, 1000);
    let error = run(failing).await.unwrap_err().to_string();
    assert!(error.contains("does not have them"), "{error}");
}

#[tokio::test]
async fn invalid_exchanged_addresses_are_ignored() {
    let lab = Lab::new(2, MIB);
    let exchanged = ["http://u:p@127.0.0.1:1", "http://localhost:9", "ftp://127.0.0.1/", "nonsense", ""];
    let (malicious, _) = malicious_seeder(Behavior::Nothing, &exchanged.map(str::to_owned)).await;
    let honest = honest_seeder(&lab).await;
    run(pull(lab.empty("b"), &[malicious, honest])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
}

/// One seeder sends another model's manifest for this root.
#[tokio::test]
async fn fetch_manifest_refuses_another_root() {
    let (lab, other) = (Lab::new(2, MIB), Lab::new(3, MIB));
    let json = other.manifest.to_json();
    let routes = Router::new().route("/v1/swarm/{root}/manifest", get(async || json));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let malicious = peer(listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, routes).await });
    let honest = peer(seeder_of(lab.complete()).await);
    let root = lab.manifest.root();
    let manifest = fetch_manifest(&client(), &[malicious.clone(), honest], root).await.unwrap();
    assert_eq!(manifest.root(), root);
    let error = fetch_manifest(&client(), &[malicious], root).await.unwrap_err().to_string();
    assert!(error.contains("sent the manifest of"), "{error}");
    assert!(Seeds::new().store(root).is_none());
}
