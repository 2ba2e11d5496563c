//! The built-in swarm policy, in the sandbox.

use std::sync::Arc;
use std::time::Duration;

use tightwad_modes::{KINDS, SwarmPlugin};
use tightwad_sandbox::{Library, Limits, Loaded, PluginEngine};
use tightwad_swarm::{Event, Fetch, Fetched, PeerId, Picker, Slot, Task};

#[tokio::test]
async fn the_built_in_policy_picks_what_is_rare_and_only_what_a_peer_has() {
    let engine = Arc::new(PluginEngine::new(None, Limits::default()).unwrap());
    let slot = Library::new(engine, KINDS, Vec::new()).load::<SwarmPlugin>("swarm", None).await.unwrap();
    assert_eq!(slot.current().label(), "swarm@0.1.0");
    let mut picker = slot.current().picker("{}");
    let task = Task { pieces: vec![1 << 20; 4], wanted: vec![0, 1, 2, 3], urgent: 0, seed: 1 };
    picker.start(&task).await.unwrap();
    let (one, other) = (PeerId(0), PeerId(1));
    let events = vec![
        Event::Joined(one),
        Event::Joined(other),
        Event::Has(one, vec![0, 1, 2, 3]),
        Event::Has(other, vec![0, 1, 2]),
    ];
    let slots = [Slot { peer: one, free: 1 }, Slot { peer: other, free: 1 }];
    let picked = picker.pick(Duration::ZERO, events, &slots).await.unwrap();
    assert!(picked.contains(&Fetch { peer: one, piece: 3 }), "nobody else has it: {picked:?}");
    let rest = picked.iter().find(|fetch| fetch.peer == other).unwrap();
    assert!(rest.piece < 3, "{picked:?}");
    let took = Duration::from_millis(5);
    let done = Fetched { peer: one, piece: 3, bytes: 1 << 20, took, fault: None };
    let slots = [Slot { peer: one, free: 1 }];
    let next = picker.pick(took, vec![Event::Done(done)], &slots).await.unwrap();
    assert!(next.iter().all(|fetch| fetch.piece < 3 && fetch.peer == one), "{next:?}");
    assert!(slot.current().identity().counts().calls() >= 3);
}
