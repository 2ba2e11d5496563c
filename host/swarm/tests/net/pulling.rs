//! Pulls that go well.

use std::sync::Arc;
use std::time::Duration;

use tightwad_core::Token;
use tightwad_swarm::net::{Client, Peer, Progress, Pull, RateLimit, SeedState, Seeding, Seeds};
use tightwad_swarm::{Event, Picker};
use tokio::sync::{mpsc, watch};

use super::pickers::Plain;
use super::support::{Lab, MIB, client, link_to, peer, pull, pull_with, run, seeder, seeder_of, seeds};

#[tokio::test]
async fn a_file_comes_from_one_seeder() {
    let lab = Lab::new(24, 5 * MIB);
    let from = seeder_of(lab.whole()).await;
    let (picker, log) = Plain::logged();
    let (sender, progress) = watch::channel(Progress::default());
    let summary = pull_with(lab.empty("b"), &[from], picker).run(sender).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert!(!lab.dir.path().join("b.bin.part").exists(), "it has its name now");
    let size = lab.manifest.size();
    assert_eq!((summary.bytes, summary.wasted, summary.duplicate), (size, 0, 0), "{summary:?}");
    assert_eq!(summary.from, [(peer(from), size)]);
    let shown = progress.borrow().clone();
    assert_eq!((shown.bytes_had, shown.bytes_wanted, shown.pieces_had), (size, size, lab.pieces()));
    let log = log.lock().unwrap();
    assert!(matches!(log[..2], [Event::Joined(_), Event::Has(..)]), "{log:?}");
}

#[tokio::test]
async fn parts_of_many_make_a_whole() {
    let lab = Lab::new(12, MIB);
    let mut from = Vec::new();
    for machine in 0..3 {
        let pieces = (0..lab.pieces()).filter(|piece| piece % 3 == machine);
        from.push(seeder_of(lab.partial(&format!("a{machine}"), pieces)).await);
    }
    let summary = run(pull(lab.empty("b"), &from)).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert_eq!((summary.from.len(), summary.bytes), (3, lab.manifest.size()));
}

/// Two machines, each of which can reach only one half of the model, and one another.
#[tokio::test]
async fn pullers_feed_one_another() {
    let lab = Lab::new(16, MIB);
    let mut pulls = Vec::new();
    let mut machines = Vec::new();
    for machine in 0..2 {
        let half = (0..lab.pieces()).filter(|piece| piece % 2 == machine);
        let source = seeder_of(lab.partial(&format!("a{machine}"), half)).await;
        let seeds = Arc::new(Seeds::new());
        let own = seeder(SeedState::new(seeds.clone())).await;
        machines.push((own, source, Seeding { seeds, port: Some(own.port()) }));
    }
    for (machine, (own, source, seeding)) in machines.iter().enumerate() {
        let other = machines[1 - machine].0;
        // It knows itself too, and does not fall for it.
        let mut pull = pull(lab.empty(&format!("b{machine}")), &[*source, other, *own]);
        pull.seeding = Some(seeding.clone());
        pulls.push(run(pull));
    }
    let summaries = futures_util::future::join_all(pulls).await;
    for (machine, summary) in summaries.into_iter().enumerate() {
        let summary = summary.unwrap();
        assert!(lab.is_same(&lab.path(&format!("b{machine}"))));
        let other = summary.from.iter().find(|(from, _)| *from == peer(machines[1 - machine].0));
        assert!(other.unwrap().1 >= lab.manifest.size() / 2 - 2 * MIB, "{summary:?}");
        // And goes on seeding.
        let store = machines[machine].2.seeds.store(lab.manifest.root()).unwrap();
        assert_eq!(store.had().len(), lab.manifest.pieces().len());
    }
}

#[tokio::test]
async fn a_dropped_pull_is_gone_on_with() {
    let lab = Lab::new(16, MIB);
    let proxy = link_to(lab.whole()).await;
    let store = lab.empty("b");
    let mut slow = pull(store.clone(), &[proxy.address()]);
    slow.limits.rate = Some(Arc::new(RateLimit::new(16 * MIB)));
    {
        let running = run(slow);
        tokio::pin!(running);
        while store.had().len() < 5 {
            tokio::select! {
                ended = &mut running => panic!("too early: {ended:?}"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    }
    drop(store);
    let store = lab.again("b").await;
    let had = store.bytes_had();
    assert!(had >= 5 * MIB, "{had}");
    let before = proxy.faults().bytes().1;
    let summary = run(pull(store, &[proxy.address()])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert_eq!(summary.bytes, lab.manifest.size() - had);
    let came = proxy.faults().bytes().1 - before;
    // Heads of answers come on top, and what was on its way when the first pull was dropped.
    assert!(came < summary.bytes + 8 * MIB, "{came} for {}", summary.bytes);
    assert_eq!((summary.wasted, summary.duplicate), (0, 0));
}

#[tokio::test]
async fn only_what_is_wanted_comes_and_urgent_pieces_first() {
    let lab = Lab::new(12, MIB);
    let from = seeder_of(lab.whole()).await;
    let (picker, log) = Plain::logged();
    let store = lab.empty("b");
    let mut some = pull_with(store.clone(), &[from], picker);
    some.wanted = Some(vec![2, 3, 4, 9, 9]);
    some.urgent = vec![9, 11];
    some.limits.requests = 1;
    let summary = run(some).await.unwrap();
    assert_eq!(store.had(), [2, 3, 4, 9]);
    assert_eq!(summary.bytes, 4 * MIB);
    assert!(lab.dir.path().join("b.bin.part").exists(), "it is not whole");
    let first = log.lock().unwrap().iter().find_map(|event| match event {
        Event::Done(fetched) => Some(fetched.piece),
        _ => None,
    });
    assert_eq!(first, Some(9));
    let mut wrong = pull(store, &[from]);
    wrong.wanted = Some(vec![99]);
    assert!(run(wrong).await.unwrap_err().to_string().contains("no piece 99"));
}

#[tokio::test]
async fn peers_are_learned_from_peers() {
    let lab = Lab::new(6, MIB);
    let known = seeds(lab.partial("a", [0]));
    let whole = seeder_of(lab.whole()).await;
    known.know(lab.manifest.root(), &format!("http://{whole}"));
    let from = seeder(SeedState::new(known)).await;
    let summary = run(pull(lab.empty("b"), &[from])).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert!(summary.from.iter().any(|(from, _)| *from == peer(whole)), "{summary:?}");
}

#[tokio::test]
async fn peers_may_turn_up_later() {
    let lab = Lab::new(3, MIB);
    let (sender, found) = mpsc::channel(4);
    let mut pull = pull(lab.empty("b"), &[]);
    pull.found = Some(found);
    let pulling = tokio::spawn(run(pull));
    sender.send(peer(seeder_of(lab.whole()).await)).await.unwrap();
    pulling.await.unwrap().unwrap();
    assert!(lab.is_same(&lab.path("b")));
}

/// The address of a seeder's data is that of any file on a web server that knows range requests.
#[tokio::test]
async fn a_file_on_a_web_server_is_a_seed() {
    let lab = Lab::new(6, MIB);
    let address = seeder_of(lab.whole()).await;
    let url = format!("http://{address}/v1/swarm/{}/data", lab.manifest.root());
    let from = vec![Peer::file(&url).unwrap()];
    let token = Client::new(Token::new("secret").ok()).unwrap();
    let summary = run(Pull::new(token, lab.empty("b"), Box::new(Plain::default()), from)).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert_eq!(summary.wasted, 0);
    // Another file is refused, and why is said.
    let other = Lab::new(5, MIB);
    let from = vec![Peer::file(&url).unwrap()];
    let wrong = Pull::new(client(), other.empty("b"), Box::new(Plain::default()), from);
    let error = run(wrong).await.unwrap_err().to_string();
    assert!(error.contains("it is another file"), "{error}");
}

/// One large piece, two slow seeders: both bring parts of it.
#[tokio::test]
async fn two_peers_share_the_last_piece() {
    let lab = Lab::new(16, 16 * MIB);
    let mut from = Vec::new();
    for _ in 0..2 {
        let state = SeedState::new(seeds(lab.whole()));
        from.push(seeder(state.limited(Some(Arc::new(RateLimit::new(16 * MIB))))).await);
    }
    let (picker, log) = Plain::logged();
    let summary = run(pull_with(lab.empty("b"), &from, picker)).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert_eq!(summary.bytes, lab.manifest.size());
    assert_eq!(summary.from.len(), 2, "{summary:?}");
    assert!(summary.duplicate <= 1, "{summary:?}");
    assert!(log.lock().unwrap().iter().any(|event| matches!(event, Event::Joined(_))));
}

#[tokio::test]
async fn downloads_keep_to_their_rate() {
    let lab = Lab::new(4, MIB);
    let from = seeder_of(lab.whole()).await;
    let mut slow = pull(lab.empty("b"), &[from]);
    slow.limits.rate = Some(Arc::new(RateLimit::new(4 * MIB)));
    let summary = run(slow).await.unwrap();
    assert!(summary.took >= Duration::from_millis(800), "{summary:?}");
}

#[tokio::test]
async fn what_is_had_already_is_not_fetched() {
    let lab = Lab::new(3, MIB);
    let store = lab.partial("b", 0..lab.pieces());
    let picker: Box<dyn Picker> = Box::new(Plain::default());
    let summary = run(pull_with(store, &[], picker)).await.unwrap();
    assert_eq!(summary.bytes, 0);
    assert!(lab.is_same(&lab.path("b")));
}
