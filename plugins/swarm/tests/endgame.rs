//! The endgame: second fetches when all pieces are in flight.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Pull, SECOND, cancelled, measured};
use tightwad_plugin_sdk::Settings;

#[test]
fn piece_is_fetched_twice_once_all_are_in_flight() {
    let mut pull = measured(2, &Settings::default(), &[1, 1, 1, 1]);
    (0..4).for_each(|peer| pull.have(peer, &[0, 1]));
    assert_eq!(pull.pick(&[(0, 1)]).len(), 1);
    let second = pull.pick(&[(1, 1)]);
    assert_eq!(second.len(), 1);
    pull.now += SECOND / 10;
    let third = pull.pick(&[(1, 1), (2, 1), (3, 1)]);
    let of = |piece| third.iter().filter(|fetch| fetch.1 == piece).count();
    assert_eq!((of(0), of(1)), (1, 1), "{third:?}: two fetches per piece");
    assert!(!third.contains(&second[0]), "never twice from the same peer");
    assert!(pull.pick(&[(0, 1), (1, 1), (2, 1), (3, 1)]).is_empty());
}

#[test]
fn setting_limits_the_fetches_of_a_piece() {
    for (max_fetches_per_piece, expected) in [(0, 0), (1, 0), (3, 2)] {
        let mut pull = measured(
            1,
            &Settings::default().with("max_fetches_per_piece", max_fetches_per_piece),
            &[1, 1, 1, 1],
        );
        (0..4).for_each(|peer| pull.have(peer, &[0]));
        assert_eq!(pull.pick(&[(0, 1)]).len(), 1);
        assert_eq!(pull.pick(&[(1, 1), (2, 1), (3, 1)]).len(), expected, "{max_fetches_per_piece}");
    }
}

#[test]
fn piece_that_is_expected_last_gets_the_second_fetch() {
    // The second piece needs three times as long.
    let mut pull = measured(2, &Settings::default(), &[1, 3, 1]);
    pull.have(0, &[0]);
    pull.have(1, &[1]);
    pull.have(2, &[0, 1]);
    assert_eq!(pull.pick(&[(0, 1), (1, 1)]).len(), 2);
    assert_eq!(pull.pick(&[(2, 1)]), [(2, 1)]);
}

#[test]
fn overdue_piece_is_helped_before_a_new_fetch() {
    let mut pull = measured(2, &Settings::default(), &[1, 1, 1]);
    pull.have(0, &[0]);
    assert_eq!(pull.pick(&[(0, 1)]).len(), 1);
    pull.now += 60 * SECOND;
    pull.have(1, &[1]);
    pull.have(2, &[0, 1]);
    assert_eq!(pull.pick(&[(1, 1)]), [(1, 1)]);
    assert_eq!(pull.pick(&[(2, 1)]), [(2, 0)]);
}

#[test]
fn slow_peer_does_not_help() {
    let mut pull = measured(1, &Settings::default(), &[1, 1, 50]);
    (0..3).for_each(|peer| pull.have(peer, &[0]));
    assert_eq!(pull.pick(&[(0, 1)]).len(), 1);
    assert!(pull.pick(&[(2, 1)]).is_empty());
    assert_eq!(pull.pick(&[(1, 1), (2, 1)]), [(1, 0)]);
}

#[test]
fn piece_without_copies_does_not_prevent_the_endgame() {
    let mut pull = measured(2, &Settings::default(), &[1, 1]);
    (0..2).for_each(|peer| pull.have(peer, &[0]));
    assert_eq!(pull.pick(&[(0, 1)]).len(), 1);
    assert_eq!(pull.pick(&[(1, 1)]), [(1, 0)]);
}

#[test]
fn urgent_pieces_are_fetched_twice_before_others_begin() {
    let mut pull = Pull::new(8, 1, &Settings::default());
    (0..2).for_each(|peer| pull.have(peer, &[0, 1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(pull.pick(&[(0, 1), (1, 1)]), [(0, 0), (1, 0)]);
}

#[test]
fn complete_piece_frees_the_other_peer_at_once() {
    let mut pull = measured(1, &Settings::default(), &[1, 1]);
    (0..2).for_each(|peer| pull.have(peer, &[0]));
    assert_eq!(pull.pick(&[(0, 1), (1, 1)]).len(), 2);
    pull.completed(0, 0, SECOND);
    assert!(pull.pick(&[(0, 2), (1, 2)]).is_empty());
    pull.failed(1, 0, cancelled(500));
    assert!(pull.pick(&[(0, 2), (1, 2)]).is_empty());
}
