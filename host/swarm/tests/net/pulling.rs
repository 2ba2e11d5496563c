//! Successful pulls.

use std::sync::Arc;
use std::time::Duration;

use tightwad_core::Token;
use tightwad_swarm::net::{Client, Peer, Progress, Pull, RateLimit, SeedState, Seeding, Seeds};
use tightwad_swarm::{Event, Picker};
use tokio::sync::{mpsc, watch};

use super::pickers::InOrder;
use super::support::{Lab, MIB, client, link_to, peer, pull, pull_with, run, seeder, seeder_of, seeds};

#[tokio::test]
async fn pull_fetches_a_file_from_one_seeder() {
    let lab = Lab::new(24, 5 * MIB);
    let from = seeder_of(lab.complete()).await;
    let (picker, log) = InOrder::logged();
    let (sender, progress) = watch::channel(Progress::default());
    let summary = pull_with(lab.empty("b"), &[from], picker).run(sender).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert!(!lab.dir.path().join("b.bin.part").exists(), "the part file was renamed");
    let size = lab.manifest.size();
    assert_eq!(
        (summary.kept_bytes, summary.wasted_bytes, summary.duplicate_blocks),
        (size, 0, 0),
        "{summary:?}"
    );
    assert_eq!(summary.bytes_by_peer, [(peer(from), size)]);
    let current = progress.borrow().clone();
    assert_eq!((current.have_bytes, current.wanted_bytes, current.have_pieces), (size, size, lab.pieces()));
    let log = log.lock().unwrap();
    assert!(matches!(log[..2], [Event::Joined(_), Event::Have(..)]), "{log:?}");
}

#[tokio::test]
async fn pull_combines_parts_of_many_peers() {
    let lab = Lab::new(12, MIB);
    let mut from = Vec::new();
    for machine in 0..3 {
        let pieces = (0..lab.pieces()).filter(|piece| piece % 3 == machine);
        from.push(seeder_of(lab.partial(&format!("a{machine}"), pieces)).await);
    }
    let summary = run(pull(lab.empty("b"), &from)).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert_eq!((summary.bytes_by_peer.len(), summary.kept_bytes), (3, lab.manifest.size()));
}

/// Two machines reach each other, and each one reaches a different half of the model.
#[tokio::test]
async fn pulls_exchange_their_pieces() {
    let lab = Lab::new(16, MIB);
    let mut pulls = Vec::new();
    let mut machines = Vec::new();
    for machine in 0..2 {
        let half = (0..lab.pieces()).filter(|piece| piece % 2 == machine);
        let source = seeder_of(lab.partial(&format!("a{machine}"), half)).await;
        let seeds = Arc::new(Seeds::new());
        let address = seeder(SeedState::new(seeds.clone())).await;
        machines.push((address, source, Seeding { seeds, port: Some(address.port()), encrypted: false }));
    }
    for (machine, (address, source, seeding)) in machines.iter().enumerate() {
        let other = machines[1 - machine].0;
        // The peers include this machine itself, which the pull must reject.
        let mut pull = pull(lab.empty(&format!("b{machine}")), &[*source, other, *address]);
        pull.seeding = Some(seeding.clone());
        pulls.push(run(pull));
    }
    let summaries = futures_util::future::join_all(pulls).await;
    for (machine, summary) in summaries.into_iter().enumerate() {
        let summary = summary.unwrap();
        assert!(lab.is_same(&lab.path(&format!("b{machine}"))));
        let bytes_from = |address| {
            let from = summary.bytes_by_peer.iter().find(|(peer_url, _)| *peer_url == peer(address));
            from.map_or(0, |(_, bytes)| *bytes)
        };
        // Peer exchange can also report the source of the other machine.
        let (other, source) = (bytes_from(machines[1 - machine].0), bytes_from(machines[1 - machine].1));
        assert!(other > 0 && other + source >= lab.manifest.size() / 2 - 2 * MIB, "{summary:?}");
        // The machine still seeds after the pull.
        let store = machines[machine].2.seeds.store(lab.manifest.root()).unwrap();
        assert_eq!(store.have_pieces().len(), lab.manifest.pieces().len());
    }
}

#[tokio::test]
async fn dropped_pull_resumes() {
    let lab = Lab::new(16, MIB);
    let proxy = link_to(lab.complete()).await;
    let store = lab.empty("b");
    let mut slow = pull(store.clone(), &[proxy.address()]);
    slow.limits.rate_limit = Some(Arc::new(RateLimit::new(16 * MIB)));
    {
        let running = run(slow);
        tokio::pin!(running);
        while store.have_pieces().len() < 5 {
            tokio::select! {
                ended = &mut running => panic!("too early: {ended:?}"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    }
    drop(store);
    let store = lab.reopen("b").await;
    let have = store.have_bytes();
    assert!(have >= 5 * MIB, "{have}");
    let before = proxy.faults().bytes().1;
    let summary = run(pull(store, &[proxy.address()])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert_eq!(summary.kept_bytes, lab.manifest.size() - have);
    let sent = proxy.faults().bytes().1 - before;
    // The proxy also counts response headers, and data in flight at the drop of the first pull.
    assert!(sent < summary.kept_bytes + 8 * MIB, "{sent} for {}", summary.kept_bytes);
    assert_eq!((summary.wasted_bytes, summary.duplicate_blocks), (0, 0));
}

#[tokio::test]
async fn pull_fetches_wanted_pieces_only_and_urgent_ones_first() {
    let lab = Lab::new(12, MIB);
    let from = seeder_of(lab.complete()).await;
    let (picker, log) = InOrder::logged();
    let store = lab.empty("b");
    let mut some = pull_with(store.clone(), &[from], picker);
    some.wanted = Some(vec![2, 3, 4, 9, 9]);
    some.urgent = vec![9, 11];
    some.limits.max_requests = 1;
    let summary = run(some).await.unwrap();
    assert_eq!(store.have_pieces(), [2, 3, 4, 9]);
    assert_eq!(summary.kept_bytes, 4 * MIB);
    assert!(lab.dir.path().join("b.bin.part").exists(), "the file is incomplete");
    let first = log.lock().unwrap().iter().find_map(|event| match event {
        Event::FetchEnded(result) => Some(result.piece),
        _ => None,
    });
    assert_eq!(first, Some(9));
    let mut wrong = pull(store, &[from]);
    wrong.wanted = Some(vec![99]);
    assert!(run(wrong).await.unwrap_err().to_string().contains("no piece 99"));
}

#[tokio::test]
async fn pull_uses_peers_from_peer_exchange() {
    let lab = Lab::new(6, MIB);
    let seeds = seeds(lab.partial("a", [0]));
    let complete = seeder_of(lab.complete()).await;
    seeds.add_peer(lab.manifest.root(), complete, false);
    let from = seeder(SeedState::new(seeds)).await;
    let summary = run(pull(lab.empty("b"), &[from])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert!(summary.bytes_by_peer.iter().any(|(peer_url, _)| *peer_url == peer(complete)), "{summary:?}");
}

#[tokio::test]
async fn pull_uses_peers_discovered_later() {
    let lab = Lab::new(3, MIB);
    let (sender, discovered) = mpsc::channel(4);
    let mut pull = pull(lab.empty("b"), &[]);
    pull.discovered = Some(discovered);
    let pulling = tokio::spawn(run(pull));
    sender.send(peer(seeder_of(lab.complete()).await)).await.unwrap();
    pulling.await.unwrap().unwrap();
    assert!(lab.is_same(&lab.path("b")));
}

/// The data path of a seeder behaves like a file on a web server that supports range requests.
#[tokio::test]
async fn pull_uses_a_web_seed() {
    let lab = Lab::new(6, MIB);
    let address = seeder_of(lab.complete()).await;
    let url = format!("http://{address}/v1/swarm/{}/data", lab.manifest.root());
    let from = vec![Peer::web_seed(&url).unwrap()];
    let client_with_token = Client::new(Token::new("secret").ok(), &[], None).unwrap();
    let summary =
        run(Pull::new(client_with_token, lab.empty("b"), Box::new(InOrder::default()), from)).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert_eq!(summary.wasted_bytes, 0);
    // The pull refuses another file, and its error names the reason.
    let other = Lab::new(5, MIB);
    let from = vec![Peer::web_seed(&url).unwrap()];
    let wrong = Pull::new(client(), other.empty("b"), Box::new(InOrder::default()), from);
    let error = run(wrong).await.unwrap_err().to_string();
    assert!(error.contains("it is another file"), "{error}");
}

/// One large piece, two slow seeders: both send parts of it.
#[tokio::test]
async fn two_peers_share_the_last_piece() {
    let lab = Lab::new(16, 16 * MIB);
    let mut from = Vec::new();
    for _ in 0..2 {
        let state = SeedState::new(seeds(lab.complete()));
        from.push(seeder(state.rate_limit(Some(Arc::new(RateLimit::new(16 * MIB))))).await);
    }
    let (picker, log) = InOrder::logged();
    let summary = run(pull_with(lab.empty("b"), &from, picker)).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert_eq!(summary.kept_bytes, lab.manifest.size());
    assert_eq!(summary.bytes_by_peer.len(), 2, "{summary:?}");
    assert!(summary.duplicate_blocks <= 1, "{summary:?}");
    assert!(log.lock().unwrap().iter().any(|event| matches!(event, Event::Joined(_))));
}

#[tokio::test]
async fn pull_keeps_its_rate_limit() {
    let lab = Lab::new(4, MIB);
    let from = seeder_of(lab.complete()).await;
    let mut slow = pull(lab.empty("b"), &[from]);
    slow.limits.rate_limit = Some(Arc::new(RateLimit::new(4 * MIB)));
    let summary = run(slow).await.unwrap();
    assert!(summary.elapsed >= Duration::from_millis(800), "{summary:?}");
}

#[tokio::test]
async fn pull_of_a_complete_store_fetches_nothing() {
    let lab = Lab::new(3, MIB);
    let store = lab.partial("b", 0..lab.pieces());
    let picker: Box<dyn Picker> = Box::new(InOrder::default());
    let summary = run(pull_with(store, &[], picker)).await.unwrap();
    assert_eq!(summary.kept_bytes, 0);
    assert!(lab.is_same(&lab.path("b")));
}
