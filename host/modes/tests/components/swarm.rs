//! The built-in piece picker, in the sandbox.

use std::sync::Arc;
use std::time::Duration;

use tightwad_modes::{KINDS, PiecePicker, Settings};
use tightwad_sandbox::{Library, Limits, Plugin, PluginEngine};
use tightwad_swarm::{Event, Fetch, FetchResult, PeerId, Picker, Slot, Task};

#[tokio::test]
async fn built_in_picker_picks_rare_pieces_that_the_peer_has() {
    let engine = Arc::new(PluginEngine::new(None, Limits::default()).unwrap());
    let plugin = Library::new(engine, KINDS, Vec::new()).load::<PiecePicker>("swarm", None).await.unwrap();
    assert_eq!(plugin.current().label(), "swarm@0.1.0");
    let mut picker = plugin.current().for_pull(&Settings::default());
    let task = Task { pieces: vec![1 << 20; 4], wanted: vec![0, 1, 2, 3], urgent: 0, seed: 1 };
    picker.start(&task).await.unwrap();
    let (complete_peer, partial_peer) = (PeerId(0), PeerId(1));
    let events = vec![
        Event::Joined(complete_peer),
        Event::Joined(partial_peer),
        Event::Have(complete_peer, vec![0, 1, 2, 3]),
        Event::Have(partial_peer, vec![0, 1, 2]),
    ];
    let slots = [Slot { peer: complete_peer, free: 1 }, Slot { peer: partial_peer, free: 1 }];
    let picked = picker.pick(Duration::ZERO, events, &slots).await.unwrap();
    assert!(
        picked.contains(&Fetch { peer: complete_peer, piece: 3 }),
        "only this peer has piece 3: {picked:?}"
    );
    let second_fetch = picked.iter().find(|fetch| fetch.peer == partial_peer).unwrap();
    assert!(second_fetch.piece < 3, "{picked:?}");
    let elapsed = Duration::from_millis(5);
    let result = FetchResult { peer: complete_peer, piece: 3, bytes: 1 << 20, elapsed, fault: None };
    let slots = [Slot { peer: complete_peer, free: 1 }];
    let next = picker.pick(elapsed, vec![Event::FetchEnded(result)], &slots).await.unwrap();
    assert!(next.iter().all(|fetch| fetch.piece < 3 && fetch.peer == complete_peer), "{next:?}");
    assert!(plugin.current().identity().counts().calls() >= 3);
}
