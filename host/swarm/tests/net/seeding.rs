//! Replies of seeders.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, RETRY_AFTER};
use serde_json::{Value, json};
use tightwad_core::Token;
use tightwad_swarm::net::{Have, PeerList, RateLimit, SeedState, fetch_manifest, find_models};

use super::support::{Lab, MIB, client, peer, seeder, seeder_of, seeds};

async fn fetch(url: String) -> reqwest::Response {
    tightwad_net::machine_client().build().unwrap().get(url).send().await.unwrap()
}

async fn get(url: &str, range: &str) -> reqwest::Response {
    tightwad_net::machine_client().build().unwrap().get(url).header("range", range).send().await.unwrap()
}

#[tokio::test]
async fn seeder_reports_its_pieces_and_sends_ranges() {
    let lab = Lab::new(4, MIB);
    let address = seeder_of(lab.partial("a", [0, 1, 3])).await;
    let root = lab.manifest.root();
    let base = format!("http://{address}/v1/swarm");
    let list: Value = fetch(base.clone()).await.json().await.unwrap();
    let size = lab.manifest.size();
    let expected =
        json!([{ "root": root.to_string(), "name": "model", "size": size, "pieces": 4, "have_pieces": 3 }]);
    assert_eq!(list, expected);
    let have: Have = fetch(format!("{base}/{root}/have")).await.json().await.unwrap();
    assert_eq!((have.pieces, have.complete), (vec![(0, 2), (3, 4)], false));

    let data = format!("{base}/{root}/data");
    let answer = get(&data, "bytes=1000000-1999999").await;
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(answer.headers()[CONTENT_RANGE], format!("bytes 1000000-1999999/{size}"));
    assert_eq!(answer.bytes().await.unwrap(), lab.bytes[1_000_000..2_000_000]);
    for (range, status) in [
        ("bytes=2000000-2100000", StatusCode::RANGE_NOT_SATISFIABLE),
        ("bytes=99000000-99000001", StatusCode::RANGE_NOT_SATISFIABLE),
        ("bytes=0-1,5-6", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(get(&data, range).await.status(), status, "{range}");
    }
    let other = "0".repeat(64);
    for path in ["..%2f..%2fetc%2fpasswd/data", "model/data", &format!("{other}/have")] {
        let answer = fetch(format!("{base}/{path}")).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        let error: Value = answer.json().await.unwrap();
        assert_eq!(error["error"]["type"], "not_found_error");
    }
}

#[tokio::test]
async fn seeder_stands_behind_the_door() {
    let lab = Lab::new(1, MIB);
    let address = seeder_of(lab.complete()).await;
    let http = tightwad_net::machine_client().build().unwrap();
    let url = |path: &str| format!("http://{address}{path}");
    let get = |path: &str| http.get(url(path));
    assert_eq!(get("/ready").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(get("/v1/swarm/").send().await.unwrap().status(), StatusCode::OK);
    let rebound = get("/v1/swarm").header("host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status(), StatusCode::MISDIRECTED_REQUEST);
    let foreign = get("/v1/swarm").header("origin", "http://evil.example").send().await.unwrap();
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    let form = http.post(url(&format!("/v1/swarm/{}/peers", lab.manifest.root()))).body(r#"{"port": 7001}"#);
    assert_eq!(form.send().await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn find_models_filters_by_name() {
    let lab = Lab::new(3, MIB);
    let (first, second) = (seeder_of(lab.complete()).await, seeder_of(lab.partial("a", [1])).await);
    let peers = [peer(first), peer(second), peer("127.0.0.1:1".parse().unwrap())];
    let (found, reasons) = find_models(&client(), &peers, Some("model")).await;
    assert_eq!((found.len(), found[0].peers.len(), reasons.len()), (1, 2, 1), "{reasons:?}");
    assert!(find_models(&client(), &peers, Some("other")).await.0.is_empty());
    let manifest = fetch_manifest(&client(), &peers, found[0].root).await.unwrap();
    assert_eq!(manifest, *lab.manifest);
    let other = "0".repeat(64).parse().unwrap();
    let error = fetch_manifest(&client(), &peers, other).await.unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");
}

#[tokio::test]
async fn seeder_refuses_wrong_tokens_and_addresses() {
    let lab = Lab::new(1, MIB);
    let state = |allowed: bool| {
        let allows = move |address: IpAddr| allowed && address.is_loopback();
        SeedState::new(seeds(lab.complete())).access(Token::new("secret").ok(), allows)
    };
    let root = lab.manifest.root();
    let paths = ["", "/{root}/manifest", "/{root}/have", "/{root}/data"];
    let paths = paths.map(|path| path.replace("{root}", &root.to_string()));
    let (open, closed) = (seeder(state(true)).await, seeder(state(false)).await);
    for path in &paths {
        for (address, token, status) in [
            (open, "", StatusCode::UNAUTHORIZED),
            (open, "secret!", StatusCode::UNAUTHORIZED),
            (open, "secret", StatusCode::OK),
            (closed, "secret", StatusCode::FORBIDDEN),
        ] {
            let request = tightwad_net::machine_client()
                .build()
                .unwrap()
                .get(format!("http://{address}/v1/swarm{path}"));
            let answer = request.bearer_auth(token).send().await.unwrap();
            assert_eq!(answer.status(), status, "{path} with '{token}'");
        }
    }
}

#[tokio::test]
async fn long_poll_returns_after_a_change() {
    let lab = Lab::new(2, MIB);
    let store = lab.partial("a", [0]);
    let address = seeder_of(store.clone()).await;
    let url = format!("http://{address}/v1/swarm/{}/have", lab.manifest.root());
    let now: Have = fetch(url.clone()).await.json().await.unwrap();
    let waiting = tokio::spawn(fetch(format!("{url}?since={}&wait_ms=60000", now.version)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "nothing has changed yet");
    let begin = Instant::now();
    lab.fill(&store, 1);
    let news: Have = waiting.await.unwrap().json().await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "the change must end the poll before its limit of 30 s"
    );
    assert_eq!((news.pieces, news.complete), (vec![(0, 2)], true));
    // A version from an earlier run of the seeder gets an immediate answer.
    let begin = Instant::now();
    fetch(format!("{url}?since=999&wait_ms=60000")).await;
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn uploads_per_address_are_bounded() {
    // The file is larger than the socket buffers.
    let lab = Lab::new(32, 32 * MIB);
    let address = seeder(SeedState::new(seeds(lab.complete())).max_uploads_per_address(2)).await;
    let data = format!("http://{address}/v1/swarm/{}/data", lab.manifest.root());
    let running = [get(&data, "bytes=0-").await, get(&data, "bytes=0-").await];
    let third = get(&data, "bytes=0-").await;
    assert_eq!(third.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(third.headers()[RETRY_AFTER], "1");
    drop(running);
    while get(&data, "bytes=0-10").await.status() != StatusCode::PARTIAL_CONTENT {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client at another address of this machine.
#[cfg(target_os = "linux")]
async fn get_from(source: [u8; 4], url: &str) -> reqwest::Response {
    let client = tightwad_net::machine_client().local_address(IpAddr::from(source)).build().unwrap();
    client.get(url).header("range", "bytes=0-").send().await.unwrap()
}

/// The readers read the headers, and then nothing.
#[tokio::test]
async fn stalled_readers_lose_their_turns() {
    let lab = Lab::new(32, 32 * MIB);
    let state = SeedState::new(seeds(lab.complete())).upload_slots(2);
    let address = seeder(state.upload_stall_timeout(Duration::from_millis(200))).await;
    let data = format!("http://{address}/v1/swarm/{}/data", lab.manifest.root());
    let mut stalled = [get(&data, "bytes=0-").await, get(&data, "bytes=0-").await];
    let served = get(&data, "bytes=0-").await;
    assert_eq!(served.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(served.bytes().await.unwrap().len(), lab.bytes.len());
    // One of the stalled uploads ended before its last byte.
    let mut lengths = Vec::new();
    for reader in &mut stalled {
        let mut length = 0;
        while let Ok(Some(chunk)) = reader.chunk().await {
            length += chunk.len();
        }
        lengths.push(length);
    }
    assert_eq!(lengths.iter().filter(|length| **length < lab.bytes.len()).count(), 1, "{lengths:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_address_does_not_hold_all_turns() {
    let lab = Lab::new(32, 32 * MIB);
    // The readers take their data slowly, but never stall.
    let limit = Some(Arc::new(RateLimit::new(4 * MIB)));
    let state = SeedState::new(seeds(lab.complete())).upload_slots(2).rate_limit(limit);
    let address = seeder(state.upload_stall_timeout(Duration::from_millis(300))).await;
    let data = format!("http://{address}/v1/swarm/{}/data", lab.manifest.root());
    let greedy = [get(&data, "bytes=0-").await, get(&data, "bytes=0-").await];
    let reading = greedy.map(|upload| tokio::spawn(upload.bytes()));
    let other = get_from([127, 0, 0, 2], &data).await;
    assert_eq!(other.status(), StatusCode::PARTIAL_CONTENT);
    reading.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn rate_limit_is_not_a_stall() {
    let lab = Lab::new(1, MIB);
    // Each chunk of 4 KiB waits for 500 ms, longer than the stall timeout.
    let limit = Some(Arc::new(RateLimit::new(8 << 10)));
    let state = SeedState::new(seeds(lab.complete())).upload_slots(1).rate_limit(limit);
    let address = seeder(state.upload_stall_timeout(Duration::from_millis(400))).await;
    let data = format!("http://{address}/v1/swarm/{}/data", lab.manifest.root());
    let first = tokio::spawn(get(&data, "bytes=0-8191").await.bytes());
    let second = get(&data, "bytes=0-").await;
    assert_eq!(first.await.unwrap().unwrap(), lab.bytes[..8192]);
    assert_eq!(second.status(), StatusCode::PARTIAL_CONTENT);
}

/// Other programs change the file while its seeder runs.
#[tokio::test]
async fn seeder_withdraws_a_changed_file() {
    let lab = Lab::new(1, MIB);
    let seeds = seeds(lab.complete());
    let address = seeder(SeedState::new(seeds.clone())).await;
    let root = lab.manifest.root();
    let data = format!("http://{address}/v1/swarm/{root}/data");
    // A deleted or renamed file stays readable.
    let moved = lab.path("moved");
    std::fs::rename(&lab.file, &moved).unwrap();
    assert_eq!(get(&data, "bytes=0-99").await.bytes().await.unwrap(), lab.bytes[..100]);
    let file = std::fs::File::options().write(true).open(&moved).unwrap();
    file.set_len(1000).unwrap();
    // The connection ends before or after the header.
    let http = tightwad_net::machine_client().build().unwrap();
    let answer = http.get(&data).header("range", "bytes=0-99").send().await;
    assert!(match answer {
        Ok(answer) => answer.bytes().await.is_err(),
        Err(_) => true,
    });
    assert!(seeds.store(root).is_none());
    assert_eq!(get(&data, "bytes=0-99").await.status(), StatusCode::NOT_FOUND);
    assert!(find_models(&client(), &[peer(address)], None).await.0.is_empty());
}

#[tokio::test]
async fn uploads_keep_the_rate_limit() {
    let lab = Lab::new(2, MIB);
    let limit = Arc::new(RateLimit::new(4 * MIB));
    let address = seeder(SeedState::new(seeds(lab.complete())).rate_limit(Some(limit))).await;
    let data = format!("http://{address}/v1/swarm/{}/data", lab.manifest.root());
    let begin = Instant::now();
    let (first, second) = tokio::join!(get(&data, "bytes=0-"), get(&data, "bytes=0-"));
    let (first, second) = tokio::join!(first.bytes(), second.bytes());
    assert_eq!((first.unwrap().len(), second.unwrap().len()), (lab.bytes.len(), lab.bytes.len()));
    // Two files of just below 2 MiB at 4 MiB per second, minus the burst.
    assert!(begin.elapsed() >= Duration::from_millis(850), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn peer_exchange_reports_senders_only() {
    let lab = Lab::new(1, MIB);
    let address = seeder_of(lab.complete()).await;
    let url = format!("http://{address}/v1/swarm/{}/peers", lab.manifest.root());
    let ask = async |body: &str| {
        let request = tightwad_net::machine_client().build().unwrap().post(&url);
        let request = request.header("content-type", "application/json").body(body.to_owned());
        let list: PeerList = request.send().await.unwrap().json().await.unwrap();
        list.peers
    };
    assert!(ask(r#"{"port": 7001}"#).await.is_empty());
    assert!(ask(r#"{"port": 7001}"#).await.is_empty(), "a peer does not receive its own address");
    assert_eq!(ask("{}").await, ["http://127.0.0.1:7001"]);
    assert_eq!(ask(r#"{"port": 0}"#).await, ["http://127.0.0.1:7001"]);
    assert_eq!(ask(r#"{"url": "http://10.0.0.1:80"}"#).await.len(), 1);
    for port in 8000..8200 {
        ask(&format!(r#"{{"port": {port}}}"#)).await;
    }
    assert!(ask("{}").await.len() <= 64);
}
