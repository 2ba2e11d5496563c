//! The built-in rules, each on ballots that agree, disagree, tie, lie or are missing.

use std::time::Instant;

use tightwad_consensus::rules::{Rule, Terms, rule};
use tightwad_plugin_sdk::{Ballot, Proposal, Ruling, TokenId};

/// Ballots of equal weight, of `drafters` in all.
fn ballots(drafters: usize, said: &[&[TokenId]]) -> Vec<Ballot> {
    let weights: Vec<f32> = vec![1.0 / drafters as f32; said.len()];
    weighted(&weights, said)
}

fn weighted(weights: &[f32], said: &[&[TokenId]]) -> Vec<Ballot> {
    let proposals = |tokens: &[TokenId]| {
        tokens.iter().map(|token| Proposal { token: *token, probability: 0.9 }).collect::<Vec<_>>()
    };
    let one = |(index, (weight, tokens)): (usize, (&f32, &&[TokenId]))| Ballot {
        drafter: index as u32,
        weight: *weight,
        proposals: proposals(tokens),
    };
    weights.iter().zip(said).enumerate().map(one).collect()
}

/// What is accepted; nothing: all is verified. A hundred tokens: it decodes, as no built-in rule does.
fn accepted(by: Rule, drafters: usize, ballots: &[Ballot]) -> Vec<TokenId> {
    match rule(by, ballots, &Terms::new(drafters, None, 0.75)) {
        Ruling::Accept(tokens) => {
            assert!(!tokens.is_empty(), "an empty acceptance is none");
            tokens
        }
        Ruling::Verify(paths) => {
            assert!(paths.is_empty(), "an empty list stands for everything");
            Vec::new()
        }
        Ruling::Decode(tokens) => vec![tokens; 100],
    }
}

#[test]
fn strict_accepts_what_all_agree_on() {
    let three = ballots(3, &[&[1, 2, 3], &[1, 2, 4], &[1, 2, 3, 5]]);
    assert_eq!(accepted(Rule::Strict, 3, &three), [1, 2]);
    let short = ballots(3, &[&[1, 2, 3], &[1], &[1, 2, 3]]);
    assert_eq!(accepted(Rule::Strict, 3, &short), [1], "a ballot that ended limits the others");
    let liar = ballots(3, &[&[1, 2, 3], &[7, 2, 3], &[1, 2, 3]]);
    assert!(accepted(Rule::Strict, 3, &liar).is_empty());
}

#[test]
fn strict_needs_its_quorum_but_not_all() {
    assert_eq!(accepted(Rule::Strict, 3, &ballots(3, &[&[1, 2], &[1, 2]])), [1, 2], "one is dead");
    assert!(accepted(Rule::Strict, 3, &ballots(3, &[&[1, 2]])).is_empty(), "two are dead");
    let terms = Terms::new(3, Some(3), 0.75);
    let ruling = rule(Rule::Strict, &ballots(3, &[&[1, 2], &[1, 2]]), &terms);
    assert!(matches!(ruling, Ruling::Verify(_)), "the script wants all three");
}

#[test]
fn one_ballot_is_enough_only_of_one_drafter() {
    assert_eq!(Terms::new(1, None, 0.75).quorum, 1);
    assert_eq!(Terms::new(2, Some(1), 0.75).quorum, 2);
    assert_eq!(Terms::new(5, Some(9), 0.75).quorum, 5);
    assert_eq!(Terms::new(0, None, 0.75).quorum, 0);
    for by in [Rule::Strict, Rule::Majority, Rule::AnyDisagree, Rule::Hedge] {
        assert_eq!(accepted(by, 1, &ballots(1, &[&[1, 2]])), [1, 2], "{by:?}");
        assert!(accepted(by, 2, &weighted(&[0.95], &[&[1, 2]])).is_empty(), "{by:?}");
        assert!(accepted(by, 3, &[]).is_empty(), "{by:?}");
    }
}

#[test]
fn majority_outvotes_a_liar_place_by_place() {
    let liar = ballots(3, &[&[9, 9, 9], &[1, 2, 3], &[1, 2, 3]]);
    assert_eq!(accepted(Rule::Majority, 3, &liar), [1, 2, 3]);
    // Dissenters are out: the third's 3 does not count, as it stands behind another 2.
    let parted = ballots(3, &[&[1, 2, 3], &[1, 2, 4], &[1, 8, 3]]);
    assert_eq!(accepted(Rule::Majority, 3, &parted), [1, 2]);
    let ended = ballots(3, &[&[1, 2, 3], &[1], &[1, 2, 3]]);
    assert_eq!(accepted(Rule::Majority, 3, &ended), [1, 2, 3]);
}

#[test]
fn majority_is_of_all_drafters_and_more_than_half() {
    assert!(accepted(Rule::Majority, 4, &ballots(4, &[&[1], &[1], &[2], &[2]])).is_empty(), "a tie");
    assert!(accepted(Rule::Majority, 4, &ballots(4, &[&[1], &[1]])).is_empty(), "half is not more than half");
    assert_eq!(accepted(Rule::Majority, 4, &ballots(4, &[&[1], &[1], &[1]])), [1]);
    assert!(accepted(Rule::Majority, 5, &ballots(5, &[&[1], &[1]])).is_empty(), "three are dead");
}

#[test]
fn any_disagree_accepts_a_whole_block_or_nothing() {
    let same = ballots(3, &[&[1, 2, 3], &[1, 2, 3], &[1, 2, 3]]);
    assert_eq!(accepted(Rule::AnyDisagree, 3, &same), [1, 2, 3]);
    let late = ballots(3, &[&[1, 2, 3], &[1, 2, 4], &[1, 2, 3]]);
    assert!(accepted(Rule::AnyDisagree, 3, &late).is_empty(), "all of it goes to the target");
    let short = ballots(3, &[&[1, 2, 3], &[1, 2], &[1, 2, 3]]);
    assert_eq!(accepted(Rule::AnyDisagree, 3, &short), [1, 2], "the common length agrees");
    assert!(accepted(Rule::AnyDisagree, 3, &ballots(3, &[&[1, 2]])).is_empty(), "no quorum");
}

#[test]
fn hedge_goes_by_weight_not_by_heads() {
    let said: &[&[TokenId]] = &[&[1, 2], &[8, 9], &[8, 9]];
    assert_eq!(accepted(Rule::Hedge, 3, &weighted(&[0.8, 0.1, 0.1], said)), [1, 2]);
    assert!(accepted(Rule::Hedge, 3, &weighted(&[0.34, 0.33, 0.33], said)).is_empty(), "0.66 is not 0.75");
    // At the second place a supporter of the first is lost, and so is the acceptance.
    let parted: &[&[TokenId]] = &[&[1, 2], &[1, 3], &[1, 2]];
    assert_eq!(accepted(Rule::Hedge, 3, &weighted(&[0.4, 0.3, 0.3], parted)), [1]);
}

#[test]
fn hedge_counts_the_weight_of_those_that_did_not_come() {
    let two: &[&[TokenId]] = &[&[1], &[1]];
    assert!(accepted(Rule::Hedge, 3, &weighted(&[0.3, 0.4], two)).is_empty());
    assert_eq!(accepted(Rule::Hedge, 3, &weighted(&[0.35, 0.4], two)), [1]);
}

#[test]
fn hedge_never_accepts_at_a_tie() {
    let terms = Terms::new(2, None, 0.5);
    let ruling = rule(Rule::Hedge, &weighted(&[0.5, 0.5], &[&[1], &[2]]), &terms);
    assert!(matches!(ruling, Ruling::Verify(_)));
    let ruling = rule(Rule::Hedge, &weighted(&[0.51, 0.49], &[&[1], &[2]]), &terms);
    assert!(matches!(ruling, Ruling::Accept(tokens) if tokens == [1]));
}

#[test]
fn all_weights_reach_a_threshold_of_one() {
    let said: Vec<&[TokenId]> = vec![&[1]; 7];
    let ruling = rule(Rule::Hedge, &ballots(7, &said), &Terms::new(7, None, 1.0));
    assert!(matches!(ruling, Ruling::Accept(_)), "rounding must not stand in the way");
}

#[test]
fn verify_and_plugin_accept_nothing_by_themselves() {
    let same = ballots(2, &[&[1], &[1]]);
    assert!(accepted(Rule::Verify, 2, &same).is_empty());
    assert!(accepted(Rule::Plugin, 2, &same).is_empty());
}

#[test]
fn names_are_what_scripts_write() {
    for by in [Rule::Strict, Rule::Majority, Rule::AnyDisagree, Rule::Hedge] {
        assert_eq!(Rule::named(by.name()), Some(by));
    }
    assert_eq!(Rule::named("verify"), None);
    assert_eq!(Rule::named("Strict"), None);
}

/// `cargo test --release -p tightwad-consensus --test rules -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, meaningful in a release build only"]
fn a_ruling_takes_less_than_five_microseconds() {
    let tokens: Vec<TokenId> = (0..16).collect();
    let said: Vec<&[TokenId]> = vec![&tokens; 5];
    let five = ballots(5, &said);
    let terms = Terms::new(5, None, 0.75);
    for by in [Rule::Strict, Rule::Majority, Rule::AnyDisagree, Rule::Hedge] {
        let start = Instant::now();
        for _ in 0..10_000 {
            std::hint::black_box(rule(by, std::hint::black_box(&five), &terms));
        }
        let each = start.elapsed() / 10_000;
        println!("{by:?}: {each:?}");
        assert!(each.as_nanos() < 5_000, "{by:?} takes {each:?}");
    }
}
