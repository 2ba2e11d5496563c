//! Malicious peers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use serde_json::{Value, json};
use tightwad_core::Token;
use tightwad_swarm::net::{
    Client, Pull, RateLimit, ReplyLimits, SeedState, Seeds, fetch_manifest, find_models,
};
use tightwad_swarm::{Event, Fault};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

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
    /// One byte every 20 ms.
    Drip,
}

#[derive(Clone)]
struct MaliciousSeeder {
    behavior: Behavior,
    requests: Arc<AtomicU64>,
    exchanged: Arc<[String]>,
    have: Value,
    /// The `Authorization` headers of all requests.
    tokens: Arc<Mutex<Vec<Option<String>>>>,
}

/// The runs of pieces that a seeder of a complete model reports.
fn all_pieces(lab: &Lab) -> Value {
    json!([[0, lab.pieces()]])
}

impl MaliciousSeeder {
    /// Claims to have all pieces of the model.
    fn new(lab: &Lab, behavior: Behavior) -> Self {
        let (requests, exchanged, tokens) = (Arc::default(), Arc::new([]), Arc::default());
        Self { behavior, requests, exchanged, have: all_pieces(lab), tokens }
    }

    /// Starts the seeder; returns its address.
    async fn start(&self) -> SocketAddr {
        let routes = Router::new()
            .route("/v1/swarm/{root}/have", get(have))
            .route("/v1/swarm/{root}/peers", post(peers))
            .route("/v1/swarm/{root}/data", get(data))
            .layer(from_fn_with_state(self.clone(), record_token))
            .with_state(self.clone());
        start_server(routes).await
    }
}

/// Starts a server; returns its address.
async fn start_server(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, routes).await });
    address
}

/// Starts a malicious seeder; returns its address, and the counter of its data requests.
async fn malicious_seeder(lab: &Lab, behavior: Behavior) -> (SocketAddr, Arc<AtomicU64>) {
    let seeder = MaliciousSeeder::new(lab, behavior);
    (seeder.start().await, seeder.requests)
}

async fn record_token(State(state): State<MaliciousSeeder>, request: Request, next: Next) -> Response {
    let token = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    state.tokens.lock().unwrap().push(token);
    next.run(request).await
}

async fn have(State(state): State<MaliciousSeeder>) -> Json<Value> {
    Json(json!({ "version": 1, "pieces": state.have, "complete": true, "seeder": "x" }))
}

/// A body that sends one byte every 20 ms.
fn drip(byte: u8) -> Body {
    Body::from_stream(stream::unfold((), move |()| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, Infallible>(vec![byte]), ()))
    }))
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
        Behavior::Garbage | Behavior::Drip => (from, length),
        Behavior::Flood => (from, 4 * length),
        Behavior::WrongRange => (from + 1, length),
    };
    let headers = [(CONTENT_RANGE, format!("bytes {begin}-{to}/*"))];
    if matches!(state.behavior, Behavior::Drip) {
        return (StatusCode::PARTIAL_CONTENT, headers, drip(0x5a)).into_response();
    }
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
        let (malicious, requests) = malicious_seeder(&lab, behavior).await;
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
    let (malicious, requests) = malicious_seeder(&lab, Behavior::Garbage).await;
    let seeds = seeds(lab.complete());
    seeds.add_peer(lab.manifest.root(), malicious, false);
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
        let (malicious, _) = malicious_seeder(&lab, behavior).await;
        let honest = honest_seeder(&lab).await;
        let summary = run(pull(lab.empty("b"), &[malicious, honest])).await.unwrap();
        assert!(lab.is_same(&lab.path("b")));
        assert!(summary.banned_peers.is_empty() && summary.wasted_bytes == 0, "{summary:?}");
    }
}

#[tokio::test]
async fn pull_fails_when_all_peers_are_malicious() {
    let lab = Lab::new(2, MIB);
    let (malicious, _) = malicious_seeder(&lab, Behavior::Garbage).await;
    let error = run(pull(lab.empty("b"), &[malicious])).await.unwrap_err().to_string();
    assert!(error.contains("2 pieces of model") && error.contains("sent wrong data"), "{error}");
    let (malicious, _) = malicious_seeder(&lab, Behavior::Nothing).await;
    let mut failing = pull(lab.reopen("b").await, &[malicious]);
    failing.limits = short_timeouts(10_000, 1000);
    let error = run(failing).await.unwrap_err().to_string();
    assert!(error.contains("does not have them"), "{error}");
}

#[tokio::test]
async fn invalid_exchanged_addresses_are_ignored() {
    let lab = Lab::new(2, MIB);
    let exchanged = ["http://u:p@127.0.0.1:1", "http://localhost:9", "ftp://127.0.0.1/", "nonsense", ""];
    let mut malicious = MaliciousSeeder::new(&lab, Behavior::Nothing);
    malicious.exchanged = exchanged.map(str::to_owned).into();
    let malicious = malicious.start().await;
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
    let malicious = peer(start_server(routes).await);
    let honest = peer(seeder_of(lab.complete()).await);
    let root = lab.manifest.root();
    let manifest = fetch_manifest(&client(), &[malicious.clone(), honest], root).await.unwrap();
    assert_eq!(manifest.root(), root);
    let error = fetch_manifest(&client(), &[malicious], root).await.unwrap_err().to_string();
    assert!(error.contains("sent the manifest of"), "{error}");
    assert!(Seeds::new().store(root).is_none());
}

/// Anyone can announce a seeder, and any peer can tell of one.
#[tokio::test]
async fn token_reaches_only_named_peers() {
    let lab = Lab::new(3, MIB);
    let token = Token::new("secret").unwrap();
    let (announced, told) =
        (MaliciousSeeder::new(&lab, Behavior::Nothing), MaliciousSeeder::new(&lab, Behavior::Nothing));
    let seeds = seeds(lab.complete());
    seeds.add_peer(lab.manifest.root(), told.start().await, false);
    let limit = Some(Arc::new(RateLimit::new(8 * MIB)));
    let state = SeedState::new(seeds).access(Some(token.clone()), |_| true).rate_limit(limit);
    let named = vec![peer(seeder(state).await)];
    let client = Client::new(Some(token), &named, None).unwrap();
    let mut pull = Pull::new(client, lab.empty("b"), Box::new(InOrder::default()), named);
    let (sender, discovered) = mpsc::channel(1);
    sender.send(peer(announced.start().await)).await.unwrap();
    pull.discovered = Some(discovered);
    // The pull ends when the named peer has sent everything; both others were asked by then.
    let store = pull.store.clone();
    let pulling = tokio::spawn(run(pull));
    for spy in [&announced, &told] {
        while spy.tokens.lock().unwrap().is_empty() {
            assert!(!pulling.is_finished(), "the pull ended before it asked this peer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    pulling.await.unwrap().unwrap();
    assert_eq!(store.have_bytes(), lab.manifest.size());
    for spy in [announced, told] {
        assert!(spy.tokens.lock().unwrap().iter().all(Option::is_none), "{:?}", spy.tokens);
    }
}

#[tokio::test]
async fn discovered_peer_is_left_when_it_needs_its_token() {
    let lab = Lab::new(1, MIB);
    let token = Token::new("secret").unwrap();
    let state = SeedState::new(seeds(lab.complete())).access(Some(token.clone()), |_| true);
    let closed = peer(seeder(state).await);
    let client = Client::new(Some(token.clone()), &[], None).unwrap();
    let root = lab.manifest.root();
    let error = fetch_manifest(&client, std::slice::from_ref(&closed), root).await.unwrap_err().to_string();
    assert!(error.contains("name this peer by --peer") && !error.contains("secret"), "{error}");
    let mut pull = Pull::new(client, lab.empty("b"), Box::new(InOrder::default()), Vec::new());
    let (sender, discovered) = mpsc::channel(1);
    sender.send(closed).await.unwrap();
    drop(sender);
    pull.discovered = Some(discovered);
    let error = run(pull).await.unwrap_err().to_string();
    assert!(error.contains("name this peer by --peer"), "{error}");
}

#[tokio::test]
async fn overlapping_runs_are_an_invalid_reply() {
    let lab = Lab::new(2, MIB);
    let end = lab.pieces();
    let unordered = "not ascending runs of 2 pieces";
    let cases = [
        (json!([[0, end], [0, end]]), unordered),
        (json!([[0, 4_000_000_000_u32]]), unordered),
        (json!([[1, 2], [0, 1]]), unordered),
        // A longer reply could keep the driver busy for minutes.
        (json!(vec![(0, end); 2000]), "the reply has more than 4160 bytes"),
    ];
    let pulls = cases.into_iter().enumerate().map(async |(number, (have, message))| {
        let mut malicious = MaliciousSeeder::new(&lab, Behavior::Garbage);
        malicious.have = have;
        let mut pull = pull(lab.empty(&number.to_string()), &[malicious.start().await]);
        pull.limits = short_timeouts(1000, 1000);
        let error = run(pull).await.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(malicious.requests.load(Ordering::Relaxed), 0);
    });
    futures_util::future::join_all(pulls).await;
}

#[tokio::test]
async fn dripping_peer_does_not_keep_a_pull_alive() {
    let lab = Lab::new(1, MIB);
    let (dripping, _) = malicious_seeder(&lab, Behavior::Drip).await;
    let mut pull = pull(lab.empty("b"), &[dripping]);
    pull.limits = short_timeouts(10_000, 1000);
    let error = run(pull).await.unwrap_err().to_string();
    assert!(error.contains("does not send them"), "{error}");
}

/// Two peers request the last block, and drip. A third one has it too.
#[tokio::test]
async fn dripping_peers_lose_the_last_block() {
    let lab = Lab::new(1, MIB);
    let (first, first_requests) = malicious_seeder(&lab, Behavior::Drip).await;
    let (second, second_requests) = malicious_seeder(&lab, Behavior::Drip).await;
    let (sender, discovered) = mpsc::channel(1);
    let mut pull = pull(lab.empty("b"), &[first, second]);
    pull.discovered = Some(discovered);
    pull.limits = short_timeouts(200, 60_000);
    let pulling = tokio::spawn(run(pull));
    while first_requests.load(Ordering::Relaxed) == 0 || second_requests.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let honest = seeder_of(lab.complete()).await;
    sender.send(peer(honest)).await.unwrap();
    let summary = pulling.await.unwrap().unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert_eq!(summary.bytes_by_peer, [(peer(honest), lab.manifest.size())]);
}

#[tokio::test]
async fn dripping_manifest_does_not_delay_the_others() {
    let lab = Lab::new(1, MIB);
    let drips = Router::new().route("/v1/swarm/{root}/manifest", get(async || drip(b' ')));
    let announces_much = Router::new().route(
        "/v1/swarm/{root}/manifest",
        get(async || ([(CONTENT_LENGTH, (1_u64 << 40).to_string())], drip(b' '))),
    );
    let limits =
        ReplyLimits { timeout: Duration::from_secs(1), min_bytes_per_second: 4096, ..ReplyLimits::default() };
    let client = client().with_limits(limits);
    let root = lab.manifest.root();
    let much = peer(start_server(announces_much).await);
    let error = fetch_manifest(&client, &[much], root).await.unwrap_err().to_string();
    assert!(error.contains("more than 67108864 bytes"), "{error}");
    // The dripping peers take the places of all manifests that arrive at the same time.
    let mut peers = vec![peer(start_server(drips).await); 4];
    peers.push(peer(seeder_of(lab.complete()).await));
    assert_eq!(fetch_manifest(&client, &peers, root).await.unwrap().root(), root);
}

/// The list is shown on a terminal.
#[tokio::test]
async fn list_with_an_unsafe_name_is_an_invalid_reply() {
    let root = "0".repeat(64);
    for name in ["../../x", "a/b", "\u{202e}b", "\u{1b}[31m", "NUL", &"x".repeat(300)] {
        let list = json!([{ "root": root, "name": name, "size": 1, "pieces": 1, "have_pieces": 1 }]);
        let routes = Router::new().route("/v1/swarm", get(async || Json(list)));
        let (models, errors) = find_models(&client(), &[peer(start_server(routes).await)], None).await;
        assert!(models.is_empty() && errors[0].contains("is not a safe name"), "{errors:?}");
    }
}
