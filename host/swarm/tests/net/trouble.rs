//! Failures of networks, disks and pickers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tightwad_core::Token;
use tightwad_swarm::disk::{Manifest, Store, StoreError};
use tightwad_swarm::net::{Client, Pull, PullError, RateLimit, SeedState};
use tightwad_swarm::{Event, Fault};

use super::pickers::{Failing, InOrder, InvalidPicks};
use super::support::{
    Lab, MIB, link_to, peer, pull, pull_with, run, seeder, seeder_of, seeds, short_timeouts,
};

#[tokio::test]
async fn fetch_reconnects_after_broken_connections() {
    let lab = Lab::new(12, 4 * MIB);
    let proxy = link_to(lab.complete()).await;
    // Less than a block gets through at a time.
    proxy.faults().truncate_every(50);
    let summary = run(pull(lab.empty("b"), &[proxy.address()])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert!(summary.banned_peers.is_empty() && summary.corrupt_blocks == 0, "{summary:?}");
}

#[tokio::test]
async fn stalled_peer_does_not_delay_the_pull() {
    let lab = Lab::new(8, MIB);
    let proxy = link_to(lab.complete()).await;
    let limit = Some(Arc::new(RateLimit::new(8 * MIB)));
    let honest = seeder(SeedState::new(seeds(lab.complete())).rate_limit(limit)).await;
    let (picker, log) = InOrder::logged();
    let mut pull = pull_with(lab.empty("b"), &[proxy.address(), honest], picker);
    pull.limits = short_timeouts(1000, 60_000);
    let pulling = tokio::spawn(run(pull));
    let both_joined =
        |log: &[Event]| log.iter().filter(|event| matches!(event, Event::Joined(_))).count() == 2;
    while !both_joined(&log.lock().unwrap()) {
        assert!(!pulling.is_finished(), "the pull ended too early");
        tokio::task::yield_now().await;
    }
    proxy.faults().stall(true);
    let summary = pulling.await.unwrap().unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert!(summary.banned_peers.is_empty());
    // The peer stalled, or it had sent all requested blocks before the cut.
    let log = log.lock().unwrap();
    let mut faults = log.iter().filter_map(|event| match event {
        Event::FetchEnded(result) => result.fault,
        _ => None,
    });
    assert!(faults.all(|fault| matches!(fault, Fault::Stalled | Fault::Cancelled | Fault::Refused)));
}

#[tokio::test]
async fn picker_receives_stalled_fetches() {
    let lab = Lab::new(2, MIB);
    let proxy = link_to(lab.complete()).await;
    let (picker, log) = InOrder::logged();
    let mut slow = pull_with(lab.empty("b"), &[proxy.address()], picker);
    slow.limits = short_timeouts(100, 60_000);
    // The delay exceeds the stall timeout of fetches, but not the reply timeout of other requests.
    proxy.faults().delay(Duration::from_millis(400));
    let pulling = tokio::spawn(run(slow));
    let stalled =
        |event: &Event| matches!(event, Event::FetchEnded(result) if result.fault == Some(Fault::Stalled));
    while !log.lock().unwrap().iter().any(stalled) {
        assert!(!pulling.is_finished());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.faults().delay(Duration::ZERO);
    pulling.await.unwrap().unwrap();
    assert!(lab.is_same(&lab.path("b")));
}

#[tokio::test]
async fn returning_peer_is_used_again() {
    let lab = Lab::new(8, MIB);
    let proxy = link_to(lab.complete()).await;
    let store = lab.empty("b");
    let mut pull = pull(store.clone(), &[proxy.address()]);
    pull.limits.rate_limit = Some(Arc::new(RateLimit::new(16 * MIB)));
    let pulling = tokio::spawn(run(pull));
    while store.have_pieces().len() < 2 {
        assert!(!pulling.is_finished());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    proxy.faults().refuse(true);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!pulling.is_finished());
    proxy.faults().refuse(false);
    pulling.await.unwrap().unwrap();
    assert!(lab.is_same(&lab.path("b")));
}

#[tokio::test]
async fn pull_without_peers_reports_the_missing_pieces() {
    let lab = Lab::new(3, MIB);
    let error = run(pull(lab.partial("b", [1]), &[])).await.unwrap_err().to_string();
    assert!(error.starts_with("2 pieces of model (") && error.contains("no peer is known"), "{error}");
    let mut unreachable = pull(lab.reopen("b").await, &["127.0.0.1:1".parse().unwrap()]);
    unreachable.limits = short_timeouts(1000, 1000);
    let error = run(unreachable).await.unwrap_err().to_string();
    assert!(error.contains("http://127.0.0.1:1 does not answer"), "{error}");
    // This peer has only the piece that the store has already.
    let mut useless = pull(lab.reopen("b").await, &[seeder_of(lab.partial("a", [1])).await]);
    useless.limits = short_timeouts(1000, 1000);
    let error = run(useless).await.unwrap_err().to_string();
    assert!(error.contains("does not have them"), "{error}");
}

#[tokio::test]
async fn wrong_token_ends_the_pull_at_once() {
    let lab = Lab::new(2, MIB);
    let with_token = SeedState::new(seeds(lab.complete())).access(Token::new("secret").ok(), |_| true);
    let from = vec![peer(seeder(with_token).await)];
    let pull_with_token = |token: Option<&str>| {
        let client = Client::new(token.and_then(|token| Token::new(token).ok()), &from, None).unwrap();
        let store = lab.empty(token.unwrap_or("none"));
        run(Pull::new(client, store, Box::new(InOrder::default()), from.clone()))
    };
    let begin = Instant::now();
    for wrong in [None, Some("wrong")] {
        let error = pull_with_token(wrong).await.unwrap_err().to_string();
        assert!(error.contains("401") && error.contains("--token"), "{error}");
    }
    assert!(begin.elapsed() < Duration::from_secs(50), "a pull must not wait for a peer that rejected it");
    pull_with_token(Some("secret")).await.unwrap();
    let closed = SeedState::new(seeds(lab.complete())).access(None, |_| false);
    let error = run(pull(lab.empty("c"), &[seeder(closed).await])).await.unwrap_err().to_string();
    assert!(error.contains("403"), "{error}");
}

#[tokio::test]
async fn pull_waits_for_a_busy_seeder() {
    let lab = Lab::new(6, MIB);
    let from = seeder(SeedState::new(seeds(lab.complete())).max_uploads_per_address(1)).await;
    run(pull(lab.empty("b"), &[from])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
}

#[tokio::test]
async fn pull_survives_a_failing_picker() {
    let lab = Lab::new(6, MIB);
    let from = [seeder_of(lab.complete()).await, seeder_of(lab.complete()).await];
    for (number, (at_start, picks)) in [(true, 0), (false, 0), (false, 2)].into_iter().enumerate() {
        let picker = Failing { at_start, picks, inner: InOrder::default() };
        let machine = format!("b{number}");
        let mut pull = pull_with(lab.empty(&machine), &from, Box::new(picker));
        // One fetch at a time makes the pull call the picker more often than `picks`.
        pull.limits.max_requests = 1;
        let summary = run(pull).await.unwrap();
        assert!(lab.is_same(&lab.path(&machine)));
        assert!(summary.picker_error.unwrap().contains("trapped"));
    }
}

#[tokio::test]
async fn pull_survives_a_picker_with_invalid_picks() {
    let lab = Lab::new(6, MIB);
    let from = [seeder_of(lab.complete()).await];
    let mut pull = pull_with(lab.empty("b"), &from, Box::new(InvalidPicks));
    pull.limits.picker_timeout = Duration::from_millis(50);
    let summary = run(pull).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert!(summary.picker_timeouts > 0 && summary.picker_error.is_none(), "{summary:?}");
}

#[tokio::test]
async fn moved_part_file_ends_the_pull() {
    let lab = Lab::new(4, MIB);
    let from = seeder_of(lab.complete()).await;
    let store = lab.empty("b");
    std::fs::rename(lab.dir.path().join("b.bin.part"), lab.dir.path().join("elsewhere")).unwrap();
    let error = run(pull(store, &[from])).await.unwrap_err();
    assert!(matches!(error, PullError::Store(StoreError::Moved(_))), "{error}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn pull_without_room_fetches_nothing() {
    // The file system of this folder is in memory, so it is smaller than the largest manifest.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let free = rustix::fs::statvfs(folder.path()).unwrap();
    let pieces = ((free.f_bavail * free.f_frsize) >> 26) + 8;
    let digest = "0".repeat(64);
    let blocks = vec![format!(r#"[1048576,"{digest}"]"#); 64].join(",");
    let piece = format!(r#"{{"sha256":"{digest}","blocks":[{blocks}]}}"#);
    let list = vec![piece; usize::try_from(pieces).unwrap()].join(",");
    let json = format!(
        r#"{{"version":1,"name":"m","size":{},"largest_piece":67108864,"facts":{{}},"pieces":[{list}]}}"#,
        pieces << 26
    );
    let manifest = Arc::new(Manifest::parse(json.as_bytes()).unwrap());
    let store = Arc::new(Store::resume(&folder.path().join("m"), manifest, &|_| ()).unwrap());
    let error = run(pull(store, &[])).await.unwrap_err();
    assert!(matches!(error, PullError::Store(StoreError::NoRoom { .. })), "{error}");
}
