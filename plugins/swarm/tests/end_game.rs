//! What is fetched twice, when nothing else is left.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Pull, SECOND, cancelled, measured};
use tightwad_plugin_sdk::Settings;

#[test]
fn a_piece_is_fetched_twice_once_all_are_under_way() {
    let mut pull = measured(2, &Settings::default(), &[1, 1, 1, 1]);
    (0..4).for_each(|peer| pull.has(peer, &[0, 1]));
    assert_eq!(pull.pick(&[(0, 1)]).len(), 1);
    let second = pull.pick(&[(1, 1)]);
    assert_eq!(second.len(), 1);
    pull.now += SECOND / 10;
    let third = pull.pick(&[(1, 1), (2, 1), (3, 1)]);
    let of = |piece| third.iter().filter(|fetch| fetch.1 == piece).count();
    assert_eq!((of(0), of(1)), (1, 1), "{third:?}: two fetches a piece");
    assert!(!third.contains(&second[0]), "never twice from the same peer");
    assert!(pull.pick(&[(0, 1), (1, 1), (2, 1), (3, 1)]).is_empty());
}

#[test]
fn the_user_may_want_none_or_more() {
    for (end_game, expected) in [(0, 0), (1, 0), (3, 2)] {
        let mut pull = measured(1, &Settings::default().with("end_game", end_game), &[1, 1, 1, 1]);
        (0..4).for_each(|peer| pull.has(peer, &[0]));
        assert_eq!(pull.pick(&[(0, 1)]).len(), 1);
        assert_eq!(pull.pick(&[(1, 1), (2, 1), (3, 1)]).len(), expected, "{end_game}");
    }
}

#[test]
fn what_is_expected_last_is_helped_first() {
    // The second one needs three times as long.
    let mut pull = measured(2, &Settings::default(), &[1, 3, 1]);
    pull.has(0, &[0]);
    pull.has(1, &[1]);
    pull.has(2, &[0, 1]);
    assert_eq!(pull.pick(&[(0, 1), (1, 1)]).len(), 2);
    assert_eq!(pull.pick(&[(2, 1)]), [(2, 1)]);
}

#[test]
fn what_takes_longer_than_expected_is_helped_more_than_what_began_just_now() {
    let mut pull = measured(2, &Settings::default(), &[1, 1, 1]);
    pull.has(0, &[0]);
    assert_eq!(pull.pick(&[(0, 1)]).len(), 1);
    pull.now += 60 * SECOND;
    pull.has(1, &[1]);
    pull.has(2, &[0, 1]);
    assert_eq!(pull.pick(&[(1, 1)]), [(1, 1)]);
    assert_eq!(pull.pick(&[(2, 1)]), [(2, 0)]);
}

#[test]
fn a_peer_that_is_too_slow_does_not_help() {
    let mut pull = measured(1, &Settings::default(), &[1, 1, 50]);
    (0..3).for_each(|peer| pull.has(peer, &[0]));
    assert_eq!(pull.pick(&[(0, 1)]).len(), 1);
    assert!(pull.pick(&[(2, 1)]).is_empty());
    assert_eq!(pull.pick(&[(1, 1), (2, 1)]), [(1, 0)]);
}

#[test]
fn what_nobody_has_does_not_keep_the_end_from_coming() {
    let mut pull = measured(2, &Settings::default(), &[1, 1]);
    (0..2).for_each(|peer| pull.has(peer, &[0]));
    assert_eq!(pull.pick(&[(0, 1)]).len(), 1);
    assert_eq!(pull.pick(&[(1, 1)]), [(1, 0)]);
}

#[test]
fn what_is_urgent_is_fetched_twice_before_anything_else_begins() {
    let mut pull = Pull::new(8, 1, &Settings::default());
    (0..2).for_each(|peer| pull.has(peer, &[0, 1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(pull.pick(&[(0, 1), (1, 1)]), [(0, 0), (1, 0)]);
}

#[test]
fn when_one_brings_the_rest_the_other_is_free_at_once() {
    let mut pull = measured(1, &Settings::default(), &[1, 1]);
    (0..2).for_each(|peer| pull.has(peer, &[0]));
    assert_eq!(pull.pick(&[(0, 1), (1, 1)]).len(), 2);
    pull.came(0, 0, SECOND);
    assert!(pull.pick(&[(0, 2), (1, 2)]).is_empty());
    pull.failed(1, 0, cancelled(500));
    assert!(pull.pick(&[(0, 2), (1, 2)]).is_empty());
}
