//! Networks, disks and pickers that fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tightwad_core::Token;
use tightwad_swarm::disk::StoreError;
use tightwad_swarm::net::{Client, Pull, PullError, RateLimit, SeedState};
use tightwad_swarm::{Event, Fault};

use super::pickers::{Failing, Nonsense, Plain};
use super::support::{Lab, MIB, impatient, link_to, peer, pull, pull_with, run, seeder, seeder_of, seeds};

#[tokio::test]
async fn broken_connections_are_taken_up_again() {
    let lab = Lab::new(12, 4 * MIB);
    let proxy = link_to(lab.whole()).await;
    // Less than a block gets through at a time.
    proxy.faults().truncate_every(50);
    let summary = run(pull(lab.empty("b"), &[proxy.address()])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert!(summary.banned.is_empty() && summary.corrupt == 0, "{summary:?}");
}

#[tokio::test]
async fn who_stalls_holds_nobody_up() {
    let lab = Lab::new(8, MIB);
    let proxy = link_to(lab.whole()).await;
    let limit = Some(Arc::new(RateLimit::new(8 * MIB)));
    let good = seeder(SeedState::new(seeds(lab.whole())).limited(limit)).await;
    let (picker, log) = Plain::logged();
    let mut pull = pull_with(lab.empty("b"), &[proxy.address(), good], picker);
    pull.limits = impatient(1000, 60_000);
    let pulling = tokio::spawn(run(pull));
    let there = |log: &[Event]| log.iter().filter(|event| matches!(event, Event::Joined(_))).count() == 2;
    while !there(&log.lock().unwrap()) {
        assert!(!pulling.is_finished(), "too quick");
        tokio::task::yield_now().await;
    }
    proxy.faults().cut(true);
    let summary = pulling.await.unwrap().unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert!(summary.banned.is_empty());
    // It was either being waited for, or had brought everything that it was asked for.
    let log = log.lock().unwrap();
    let mut faults = log.iter().filter_map(|event| match event {
        Event::Done(fetched) => fetched.fault,
        _ => None,
    });
    assert!(faults.all(|fault| matches!(fault, Fault::Stalled | Fault::Cancelled | Fault::Refused)));
}

#[tokio::test]
async fn a_stalled_fetch_is_told_as_such() {
    let lab = Lab::new(2, MIB);
    let proxy = link_to(lab.whole()).await;
    let (picker, log) = Plain::logged();
    let mut slow = pull_with(lab.empty("b"), &[proxy.address()], picker);
    slow.limits = impatient(100, 60_000);
    // Every byte takes longer than anybody waits for the first one; being there takes only patience.
    proxy.faults().delay(Duration::from_millis(400));
    let pulling = tokio::spawn(run(slow));
    let stalled = |event: &Event| matches!(event, Event::Done(done) if done.fault == Some(Fault::Stalled));
    while !log.lock().unwrap().iter().any(stalled) {
        assert!(!pulling.is_finished());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.faults().delay(Duration::ZERO);
    pulling.await.unwrap().unwrap();
    assert!(lab.is_same(&lab.path("b")));
}

#[tokio::test]
async fn a_peer_that_comes_back_is_used_again() {
    let lab = Lab::new(8, MIB);
    let proxy = link_to(lab.whole()).await;
    let store = lab.empty("b");
    let mut pull = pull(store.clone(), &[proxy.address()]);
    pull.limits.rate = Some(Arc::new(RateLimit::new(16 * MIB)));
    let pulling = tokio::spawn(run(pull));
    while store.had().len() < 2 {
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
async fn nobody_there_is_said_with_what_is_missing() {
    let lab = Lab::new(3, MIB);
    let error = run(pull(lab.partial("b", [1]), &[])).await.unwrap_err().to_string();
    assert!(error.starts_with("2 pieces of model (") && error.contains("no peer is known"), "{error}");
    let mut absent = pull(lab.again("b").await, &["127.0.0.1:1".parse().unwrap()]);
    absent.limits = impatient(1000, 1000);
    let error = run(absent).await.unwrap_err().to_string();
    assert!(error.contains("http://127.0.0.1:1 does not answer"), "{error}");
    // One who has only what is had already.
    let mut useless = pull(lab.again("b").await, &[seeder_of(lab.partial("a", [1])).await]);
    useless.limits = impatient(1000, 1000);
    let error = run(useless).await.unwrap_err().to_string();
    assert!(error.contains("does not have them"), "{error}");
}

#[tokio::test]
async fn a_wrong_token_ends_the_pull_at_once() {
    let lab = Lab::new(2, MIB);
    let guarded = SeedState::new(seeds(lab.whole())).guarded(Token::new("secret").ok(), |_| true);
    let from = vec![peer(seeder(guarded).await)];
    let with = |token: Option<&str>| {
        let client = Client::new(token.and_then(|token| Token::new(token).ok())).unwrap();
        let store = lab.empty(token.unwrap_or("none"));
        run(Pull::new(client, store, Box::new(Plain::default()), from.clone()))
    };
    let begin = Instant::now();
    for wrong in [None, Some("wrong")] {
        let error = with(wrong).await.unwrap_err().to_string();
        assert!(error.contains("401") && error.contains("--token"), "{error}");
    }
    assert!(begin.elapsed() < Duration::from_secs(50), "nobody waits for what cannot come");
    with(Some("secret")).await.unwrap();
    let closed = SeedState::new(seeds(lab.whole())).guarded(None, |_| false);
    let error = run(pull(lab.empty("c"), &[seeder(closed).await])).await.unwrap_err().to_string();
    assert!(error.contains("403"), "{error}");
}

#[tokio::test]
async fn busy_seeders_are_waited_for() {
    let lab = Lab::new(6, MIB);
    let from = seeder(SeedState::new(seeds(lab.whole())).uploads(1)).await;
    run(pull(lab.empty("b"), &[from])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
}

#[tokio::test]
async fn a_picker_that_fails_stops_no_pull() {
    let lab = Lab::new(6, MIB);
    let from = [seeder_of(lab.whole()).await, seeder_of(lab.whole()).await];
    for (number, (at_start, picks)) in [(true, 0), (false, 0), (false, 2)].into_iter().enumerate() {
        let picker = Failing { at_start, picks, inner: Plain::default() };
        let machine = format!("b{number}");
        let mut pull = pull_with(lab.empty(&machine), &from, Box::new(picker));
        // One fetch at a time: the pull asks the picker more often than it answers.
        pull.limits.requests = 1;
        let summary = run(pull).await.unwrap();
        assert!(lab.is_same(&lab.path(&machine)));
        assert!(summary.picker_failed.unwrap().contains("trapped"));
    }
}

#[tokio::test]
async fn a_picker_that_talks_nonsense_stops_no_pull() {
    let lab = Lab::new(6, MIB);
    let from = [seeder_of(lab.whole()).await];
    let mut pull = pull_with(lab.empty("b"), &from, Box::new(Nonsense));
    pull.limits.patience = Duration::from_millis(50);
    let summary = run(pull).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert!(summary.helped > 0 && summary.picker_failed.is_none(), "{summary:?}");
}

#[tokio::test]
async fn a_file_that_is_moved_away_ends_the_pull() {
    let lab = Lab::new(4, MIB);
    let from = seeder_of(lab.whole()).await;
    let store = lab.empty("b");
    std::fs::rename(lab.dir.path().join("b.bin.part"), lab.dir.path().join("elsewhere")).unwrap();
    let error = run(pull(store, &[from])).await.unwrap_err();
    assert!(matches!(error, PullError::Store(StoreError::Moved(_))), "{error}");
}
