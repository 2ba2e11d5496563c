//! Picks, case by case.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Pull, SECOND, cancelled, corrupt, lost, measured, refused, slot, stalled};
use tightwad_plugin_sdk::Settings;

#[test]
fn rarest_piece_comes_first() {
    let mut pull = measured(6, &Settings::default(), &[1, 1, 1]);
    pull.have(0, &[0, 1, 2, 3, 4, 5]);
    pull.have(1, &[0, 1, 2, 3]);
    pull.have(2, &[0, 1]);
    let picked = pull.pick(&[(0, 6)]);
    let pieces: Vec<u32> = picked.iter().map(|fetch| fetch.1).collect();
    for (two, expected) in pieces.chunks(2).zip([[4, 5], [2, 3], [0, 1]]) {
        assert!(expected.iter().all(|piece| two.contains(piece)), "{pieces:?}");
    }
}

#[test]
fn rarity_follows_peers_that_join_and_leave() {
    let mut pull = measured(2, &Settings::default(), &[1, 1, 1]);
    pull.have(0, &[0, 1]);
    pull.have(1, &[0]);
    pull.have(2, &[1]);
    pull.left(1);
    pull.have(3, &[1]);
    assert_eq!(pull.pick(&[(0, 1)]), [(0, 0)]);
}

#[test]
fn ties_are_broken_at_random_and_equal_seeds_give_equal_picks() {
    let picks = |seed: u64| {
        let mut pull = Pull::seeded(64, 0, &Settings::default(), seed);
        pull.have(0, &(0..64).collect::<Vec<u32>>());
        pull.pick(&[(0, 1)])
    };
    assert_eq!(picks(7), picks(7));
    let different: std::collections::BTreeSet<u32> = (0..50).map(|seed| picks(seed)[0].1).collect();
    assert!(different.len() > 20, "{different:?}");
}

#[test]
fn each_order_picks_another_first_piece() {
    let first = |settings: Settings| {
        let mut pull = Pull::new(64, 0, &settings);
        pull.have(0, &(0..64).collect::<Vec<u32>>());
        pull.have(1, &(0..63).collect::<Vec<u32>>());
        pull.pick(&[(0, 1)])[0].1
    };
    assert_eq!(first(Settings::default().with("order", "sequential")), 0);
    assert_eq!(first(Settings::default()), 63);
    assert!(!matches!(first(Settings::default().with("order", "random")), 0 | 63));
}

#[test]
fn urgent_pieces_come_before_rare_ones() {
    let mut pull = Pull::new(8, 2, &Settings::default());
    for peer in 0..3 {
        pull.have(peer, &[0, 1]);
    }
    pull.have(0, &[2, 3, 4, 5, 6, 7]);
    let picked = pull.pick(&[(0, 1), (1, 1)]);
    assert!(picked.iter().all(|(_, piece)| *piece < 2) && picked[0].1 != picked[1].1, "{picked:?}");
}

#[test]
fn partial_pieces_come_first() {
    let mut pull = Pull::new(8, 0, &Settings::default());
    pull.have(0, &[5]);
    assert_eq!(pull.pick(&[(0, 1)]), [(0, 5)]);
    pull.failed(0, 5, lost(300));
    pull.have(1, &[0, 1, 2, 3, 4, 5, 6, 7]);
    pull.have(2, &[5]);
    assert_eq!(pull.pick(&[(1, 1)]), [(1, 5)]);
    // The failed fetch brought no bytes, so the piece keeps those of the first one.
    pull.failed(1, 5, cancelled(0));
    assert_eq!(pull.pick(&[(2, 1)]), [(2, 5)]);
}

#[test]
fn unknown_peer_gets_one_fetch_and_known_peer_all_free_slots() {
    let mut pull = Pull::new(8, 0, &Settings::default());
    pull.have(0, &[0, 1, 2, 3, 4, 5, 6, 7]);
    let picked = pull.pick(&[(0, 4)]);
    assert_eq!(picked.len(), 1);
    assert!(pull.pick(&[(0, 3)]).is_empty());
    pull.completed(0, picked[0].1, SECOND);
    assert_eq!(pull.pick(&[(0, 4)]).len(), 4);
}

#[test]
fn peer_with_unique_pieces_is_not_asked_for_common_ones() {
    let mut pull = Pull::new(8, 1, &Settings::default());
    pull.have(0, &[0, 1, 2, 3, 4, 5, 6, 7]);
    pull.have(1, &[0]);
    let picked = pull.pick(&[(0, 1), (1, 1)]);
    assert!(picked.contains(&(1, 0)), "{picked:?}");
    assert!(picked.iter().any(|(peer, piece)| *peer == 0 && *piece > 0), "{picked:?}");
}

#[test]
fn faster_peer_of_two_is_asked_first() {
    let mut pull = measured(1, &Settings::default(), &[2, 1]);
    pull.have(0, &[0]);
    pull.have(1, &[0]);
    assert_eq!(pull.pick(&[(0, 1), (1, 1)])[0], (1, 0));
}

#[test]
fn slow_peer_gets_one_fetch_and_no_piece_that_would_come_last() {
    let mut pull = measured(300, &Settings::default(), &[1, 1, 10]);
    let all: Vec<u32> = (0..300).collect();
    (0..3).for_each(|peer| pull.have(peer, &all));
    let picked = pull.pick(&[(2, 4), (0, 1)]);
    assert_eq!(picked.iter().filter(|(peer, _)| *peer == 2).count(), 1, "{picked:?}");
    assert_eq!(picked[0].0, 0, "the faster one picks first");

    let mut pull = measured(10, &Settings::default(), &[1, 1, 10]);
    let few: Vec<u32> = (0..10).collect();
    (0..3).for_each(|peer| pull.have(peer, &few));
    assert!(pull.pick(&[(2, 4)]).is_empty(), "the others complete everything before");
    pull.left(0);
    pull.left(1);
    assert!(!pull.pick(&[(2, 4)]).is_empty(), "there is no other peer");
}

#[test]
fn slow_peer_gets_urgent_pieces_only_if_no_other_peer_has_them() {
    let mut pull = Pull::new(300, 2, &Settings::default());
    for (peer, seconds) in [(0, 1), (1, 1), (2, 10)] {
        pull.have(peer, &[297 + peer]);
        assert_eq!(pull.pick(&[(peer, 1)]).len(), 1);
        pull.completed(peer, 297 + peer, seconds * SECOND);
    }
    let all: Vec<u32> = (2..297).collect();
    (0..3).for_each(|peer| pull.have(peer, &all));
    pull.have(0, &[0]);
    pull.have(2, &[0]);
    let picked = pull.pick(&[(2, 1)]);
    assert!(picked.len() == 1 && picked[0].1 >= 2, "{picked:?}");
    pull.failed(2, picked[0].1, cancelled(0));
    pull.have(2, &[1]);
    assert_eq!(pull.pick(&[(2, 1)]), [(2, 1)]);
}

#[test]
fn failing_peer_gets_growing_backoffs() {
    let mut pull = Pull::new(8, 0, &Settings::default());
    pull.have(0, &[0, 1, 2, 3, 4, 5, 6, 7]);
    let mut pauses = Vec::new();
    for failure in [refused(), stalled(10), lost(0), refused(), stalled(0), lost(10)] {
        let picked = pull.pick(&[(0, 1)]);
        pull.failed(0, picked[0].1, failure);
        let began = pull.now;
        while pull.picker.clone().pick(pull.now, &[slot(0, 1)]).is_empty() {
            pull.now += SECOND / 20;
            assert!(pull.now - began < 100 * SECOND, "the backoff does not end");
        }
        pauses.push(pull.now - began);
    }
    assert!(pauses.windows(2).all(|two| two[1] > two[0]), "{pauses:?}");
    assert!(pauses[5] > 4 * SECOND, "{pauses:?}");
    let picked = pull.pick(&[(0, 1)]);
    pull.completed(0, picked[0].1, SECOND);
    let picked = pull.pick(&[(0, 1)]);
    assert_eq!(picked.len(), 1, "a complete piece ends the backoff");
}

#[test]
fn corrupt_peer_gets_no_more_fetches() {
    let mut pull = Pull::new(4, 0, &Settings::default());
    pull.have(0, &[0, 1]);
    pull.have(1, &[0]);
    let picked = pull.pick(&[(0, 1)]);
    pull.failed(0, picked[0].1, corrupt());
    pull.have(0, &[2, 3]);
    pull.now += 1000 * SECOND;
    assert!(pull.pick(&[(0, 4)]).is_empty());
    assert_eq!(pull.pick(&[(1, 1)]), [(1, 0)]);
    pull.left(0);
    assert!(pull.pick(&[(0, 4)]).is_empty());
}

#[test]
fn peer_that_lacks_an_announced_piece_is_asked_for_another_one() {
    let mut pull = Pull::new(2, 0, &Settings::default());
    pull.have(0, &[0, 1]);
    pull.have(1, &[1]);
    for _ in 0..2 {
        // This piece has only one copy, so it comes first.
        assert_eq!(pull.pick(&[(0, 1)]), [(0, 0)]);
        pull.failed(0, 0, refused());
        pull.now += 100 * SECOND;
        let picked = pull.pick(&[(0, 1)]);
        assert_eq!(picked, [(0, 1)]);
        pull.failed(0, 1, refused());
        pull.now += 100 * SECOND;
        assert!(pull.pick(&[(0, 1)]).is_empty(), "one call without a pick");
    }
}

#[test]
fn pieces_of_a_lost_peer_are_fetched_from_others() {
    let mut pull = Pull::new(1, 0, &Settings::default());
    pull.have(0, &[0]);
    pull.have(1, &[0]);
    assert_eq!(pull.pick(&[(0, 1)]), [(0, 0)]);
    pull.left(0);
    assert_eq!(pull.pick(&[(1, 1)]), [(1, 0)]);
}

#[test]
fn nonsense_is_ignored() {
    let mut pull = Pull::new(2, 9, &Settings::default().with("order", 7));
    pull.have(0, &[0, 0, 2, u32::MAX]);
    pull.have(0, &[0]);
    pull.left(77);
    pull.completed(5, 9, 0);
    pull.failed(5, 0, stalled(u64::MAX));
    assert!(pull.pick(&[(7, 1), (0, 0)]).is_empty());
    assert_eq!(pull.pick(&[(0, u32::MAX), (0, 3)]), [(0, 0)]);
    pull.completed(0, 0, 0);
    pull.completed(0, 0, 0);
    assert!(pull.pick(&[(0, 3)]).is_empty());
    assert!(Pull::new(0, 0, &Settings::default()).pick(&[(0, 1)]).is_empty());
}
