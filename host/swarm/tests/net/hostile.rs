//! Peers that lie.

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

use super::pickers::Plain;
use super::support::{
    Lab, MIB, client, impatient, link_to, peer, pull, pull_with, run, seeder, seeder_of, seeds,
};

/// How a hostile seeder answers to requests for data.
#[derive(Clone, Copy)]
enum Lie {
    /// With noise.
    Garbage,
    /// With noise, and more than was asked for.
    Flood,
    /// That it has nothing, though it said that it has all.
    Nothing,
    /// With other bytes than those asked for.
    Elsewhere,
}

#[derive(Clone)]
struct Hostile {
    lie: Lie,
    requests: Arc<AtomicU64>,
    told: Arc<[String]>,
}

async fn hostile(lie: Lie, told: &[String]) -> (SocketAddr, Arc<AtomicU64>) {
    let requests = Arc::<AtomicU64>::default();
    let state = Hostile { lie, requests: requests.clone(), told: told.into() };
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
    Json(json!({ "version": 1, "pieces": pieces, "whole": true, "seeder": "x" }))
}

async fn peers(State(state): State<Hostile>) -> Json<Value> {
    Json(json!({ "peers": &state.told[..] }))
}

async fn data(State(state): State<Hostile>, headers: HeaderMap) -> Response {
    state.requests.fetch_add(1, Ordering::Relaxed);
    let range = headers[RANGE].to_str().unwrap().trim_start_matches("bytes=");
    let (from, to) = range.split_once('-').unwrap();
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    let length = usize::try_from(to - from + 1).unwrap();
    let (begin, length) = match state.lie {
        Lie::Nothing => return StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        Lie::Garbage => (from, length),
        Lie::Flood => (from, 4 * length),
        Lie::Elsewhere => (from + 1, length),
    };
    let headers = [(CONTENT_RANGE, format!("bytes {begin}-{to}/*"))];
    (StatusCode::PARTIAL_CONTENT, headers, Body::from(vec![0x5a; length])).into_response()
}

/// A seeder that is slow enough for others to have their turn.
async fn honest(lab: &Lab) -> SocketAddr {
    let limit = RateLimit::new(16 * MIB);
    seeder(SeedState::new(seeds(lab.whole())).limited(Some(Arc::new(limit)))).await
}

#[tokio::test]
async fn who_sends_garbage_is_banned_by_the_first_block() {
    for lie in [Lie::Garbage, Lie::Flood] {
        let lab = Lab::new(12, 4 * MIB);
        let (liar, requests) = hostile(lie, &[]).await;
        let good = honest(&lab).await;
        let (picker, log) = Plain::logged();
        let summary = run(pull_with(lab.empty("b"), &[liar, good], picker)).await.unwrap();
        assert!(lab.is_same(&lab.path("b")));
        assert_eq!(summary.banned, [peer(liar)]);
        assert_eq!(summary.from, [(peer(good), lab.manifest.size())]);
        // At most what was on its way from it at the same time.
        assert!((1..=4).contains(&requests.load(Ordering::Relaxed)), "{requests:?}");
        let log = log.lock().unwrap();
        let corrupt =
            |event: &Event| matches!(event, Event::Done(done) if done.fault == Some(Fault::Corrupt));
        let at = log.iter().position(corrupt).expect("the picker is told");
        assert!(log[at..].iter().any(|event| matches!(event, Event::Left(_))));
    }
}

#[tokio::test]
async fn who_is_banned_stays_banned_whoever_names_it_again() {
    let lab = Lab::new(8, MIB);
    let (liar, requests) = hostile(Lie::Garbage, &[]).await;
    let known = seeds(lab.whole());
    known.know(lab.manifest.root(), &format!("http://{liar}"));
    let limit = Some(Arc::new(RateLimit::new(8 * MIB)));
    let good = seeder(SeedState::new(known).limited(limit)).await;
    let summary = run(pull(lab.empty("b"), &[liar, good])).await.unwrap();
    assert_eq!(summary.banned, [peer(liar)]);
    assert!(requests.load(Ordering::Relaxed) <= 4);
}

#[tokio::test]
async fn flipped_bits_cost_a_block_and_the_peer() {
    let lab = Lab::new(16, 4 * MIB);
    let proxy = link_to(lab.whole()).await;
    proxy.faults().garble_every(40);
    let good = honest(&lab).await;
    let summary = run(pull(lab.empty("b"), &[proxy.address(), good])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert_eq!(summary.banned, [peer(proxy.address())], "{summary:?}");
    assert!(summary.corrupt >= 1);
}

#[tokio::test]
async fn claims_without_pieces_hold_nothing_up() {
    for lie in [Lie::Nothing, Lie::Elsewhere] {
        let lab = Lab::new(6, MIB);
        let (liar, _) = hostile(lie, &[]).await;
        let good = honest(&lab).await;
        let summary = run(pull(lab.empty("b"), &[liar, good])).await.unwrap();
        assert!(lab.is_same(&lab.path("b")));
        assert!(summary.banned.is_empty() && summary.wasted == 0, "{summary:?}");
    }
}

#[tokio::test]
async fn only_liars_are_not_enough() {
    let lab = Lab::new(2, MIB);
    let (liar, _) = hostile(Lie::Garbage, &[]).await;
    let error = run(pull(lab.empty("b"), &[liar])).await.unwrap_err().to_string();
    assert!(error.contains("2 pieces of model") && error.contains("sent wrong data"), "{error}");
    let (liar, _) = hostile(Lie::Nothing, &[]).await;
    let mut hopeless = pull(lab.again("b").await, &[liar]);
    hopeless.limits = impatient(10_000, 1000);
    let error = run(hopeless).await.unwrap_err().to_string();
    assert!(error.contains("does not have them"), "{error}");
}

#[tokio::test]
async fn hearsay_leads_nowhere_else() {
    let lab = Lab::new(2, MIB);
    let told = ["http://u:p@127.0.0.1:1", "http://localhost:9", "ftp://127.0.0.1/", "nonsense", ""];
    let (liar, _) = hostile(Lie::Nothing, &told.map(str::to_owned)).await;
    let good = honest(&lab).await;
    run(pull(lab.empty("b"), &[liar, good])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
}

/// A seeder that gives another model's manifest under this root.
#[tokio::test]
async fn another_manifest_is_not_believed() {
    let (lab, other) = (Lab::new(2, MIB), Lab::new(3, MIB));
    let json = other.manifest.to_json();
    let routes = Router::new().route("/v1/swarm/{root}/manifest", get(async || json));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let liar = peer(listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, routes).await });
    let good = peer(seeder_of(lab.whole()).await);
    let root = lab.manifest.root();
    let manifest = fetch_manifest(&client(), &[liar.clone(), good], root).await.unwrap();
    assert_eq!(manifest.root(), root);
    let error = fetch_manifest(&client(), &[liar], root).await.unwrap_err().to_string();
    assert!(error.contains("sent the manifest of"), "{error}");
    assert!(Seeds::new().store(root).is_none());
}
