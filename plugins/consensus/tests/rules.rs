//! The built-in rules on ballots that agree, disagree, tie, are wrong or are missing.

use std::time::Instant;

use tightwad_consensus::rules::{Rule, RuleParams, rule_on};
use tightwad_plugin_sdk::{Ballot, Proposal, Ruling, TokenId};

/// Ballots of equal weight, from some of `drafters` drafters.
fn ballots(drafters: usize, proposed: &[&[TokenId]]) -> Vec<Ballot> {
    let weights: Vec<f32> = vec![1.0 / drafters as f32; proposed.len()];
    weighted(&weights, proposed)
}

fn weighted(weights: &[f32], proposed: &[&[TokenId]]) -> Vec<Ballot> {
    let proposals = |tokens: &[TokenId]| {
        tokens.iter().map(|token| Proposal { token: *token, probability: 0.9 }).collect::<Vec<_>>()
    };
    let one = |(index, (weight, tokens)): (usize, (&f32, &&[TokenId]))| Ballot {
        drafter: index as u32,
        weight: *weight,
        proposals: proposals(tokens),
    };
    weights.iter().zip(proposed).enumerate().map(one).collect()
}

/// The accepted tokens; empty: all ballots are verified. No built-in rule decodes: that would be a hundred tokens.
fn accepted(rule: Rule, drafters: usize, ballots: &[Ballot]) -> Vec<TokenId> {
    match rule_on(rule, ballots, &RuleParams::new(drafters, None, 0.75)) {
        Ruling::Accept(tokens) => {
            assert!(!tokens.is_empty(), "an acceptance is not empty");
            tokens
        }
        Ruling::Verify(paths) => {
            assert!(paths.is_empty(), "an empty list means every ballot");
            Vec::new()
        }
        Ruling::Decode(tokens) => vec![tokens; 100],
    }
}

#[test]
fn strict_accepts_tokens_on_which_all_agree() {
    let three = ballots(3, &[&[1, 2, 3], &[1, 2, 4], &[1, 2, 3, 5]]);
    assert_eq!(accepted(Rule::Strict, 3, &three), [1, 2]);
    let short = ballots(3, &[&[1, 2, 3], &[1], &[1, 2, 3]]);
    assert_eq!(accepted(Rule::Strict, 3, &short), [1], "a ballot that ended limits the others");
    let one_wrong = ballots(3, &[&[1, 2, 3], &[7, 2, 3], &[1, 2, 3]]);
    assert!(accepted(Rule::Strict, 3, &one_wrong).is_empty());
}

#[test]
fn strict_needs_its_quorum_but_not_all_drafters() {
    assert_eq!(accepted(Rule::Strict, 3, &ballots(3, &[&[1, 2], &[1, 2]])), [1, 2], "one is dead");
    assert!(accepted(Rule::Strict, 3, &ballots(3, &[&[1, 2]])).is_empty(), "two are dead");
    let params = RuleParams::new(3, Some(3), 0.75);
    let ruling = rule_on(Rule::Strict, &ballots(3, &[&[1, 2], &[1, 2]]), &params);
    assert!(matches!(ruling, Ruling::Verify(_)), "the script wants all three");
}

#[test]
fn one_ballot_is_enough_for_one_drafter_only() {
    assert_eq!(RuleParams::new(1, None, 0.75).quorum, 1);
    assert_eq!(RuleParams::new(2, Some(1), 0.75).quorum, 2);
    assert_eq!(RuleParams::new(5, Some(9), 0.75).quorum, 5);
    assert_eq!(RuleParams::new(0, None, 0.75).quorum, 0);
    for rule in [Rule::Strict, Rule::Majority, Rule::AnyDisagree, Rule::Hedge] {
        assert_eq!(accepted(rule, 1, &ballots(1, &[&[1, 2]])), [1, 2], "{rule:?}");
        assert!(accepted(rule, 2, &weighted(&[0.95], &[&[1, 2]])).is_empty(), "{rule:?}");
        assert!(accepted(rule, 3, &[]).is_empty(), "{rule:?}");
    }
}

#[test]
fn majority_outvotes_a_wrong_drafter_at_each_position() {
    let one_wrong = ballots(3, &[&[9, 9, 9], &[1, 2, 3], &[1, 2, 3]]);
    assert_eq!(accepted(Rule::Majority, 3, &one_wrong), [1, 2, 3]);
    // A ballot that disagreed is out: the third ballot's 3 follows another token, so it does not count.
    let parted = ballots(3, &[&[1, 2, 3], &[1, 2, 4], &[1, 8, 3]]);
    assert_eq!(accepted(Rule::Majority, 3, &parted), [1, 2]);
    let ended = ballots(3, &[&[1, 2, 3], &[1], &[1, 2, 3]]);
    assert_eq!(accepted(Rule::Majority, 3, &ended), [1, 2, 3]);
}

#[test]
fn majority_needs_more_than_half_of_all_drafters() {
    assert!(accepted(Rule::Majority, 4, &ballots(4, &[&[1], &[1], &[2], &[2]])).is_empty(), "a tie");
    assert!(accepted(Rule::Majority, 4, &ballots(4, &[&[1], &[1]])).is_empty(), "half is not more than half");
    assert_eq!(accepted(Rule::Majority, 4, &ballots(4, &[&[1], &[1], &[1]])), [1]);
    assert!(accepted(Rule::Majority, 5, &ballots(5, &[&[1], &[1]])).is_empty(), "three are dead");
}

#[test]
fn any_disagree_accepts_whole_ballots_or_nothing() {
    let same = ballots(3, &[&[1, 2, 3], &[1, 2, 3], &[1, 2, 3]]);
    assert_eq!(accepted(Rule::AnyDisagree, 3, &same), [1, 2, 3]);
    let late = ballots(3, &[&[1, 2, 3], &[1, 2, 4], &[1, 2, 3]]);
    assert!(accepted(Rule::AnyDisagree, 3, &late).is_empty(), "the target verifies everything");
    let short = ballots(3, &[&[1, 2, 3], &[1, 2], &[1, 2, 3]]);
    assert_eq!(accepted(Rule::AnyDisagree, 3, &short), [1, 2], "the common length agrees");
    assert!(accepted(Rule::AnyDisagree, 3, &ballots(3, &[&[1, 2]])).is_empty(), "no quorum");
}

#[test]
fn hedge_counts_weights_not_drafters() {
    let proposed: &[&[TokenId]] = &[&[1, 2], &[8, 9], &[8, 9]];
    assert_eq!(accepted(Rule::Hedge, 3, &weighted(&[0.8, 0.1, 0.1], proposed)), [1, 2]);
    assert!(
        accepted(Rule::Hedge, 3, &weighted(&[0.34, 0.33, 0.33], proposed)).is_empty(),
        "0.66 is not 0.75"
    );
    // At the second position a supporter is lost, and the weight with it.
    let parted: &[&[TokenId]] = &[&[1, 2], &[1, 3], &[1, 2]];
    assert_eq!(accepted(Rule::Hedge, 3, &weighted(&[0.4, 0.3, 0.3], parted)), [1]);
}

#[test]
fn hedge_counts_the_weight_of_absent_drafters() {
    let two: &[&[TokenId]] = &[&[1], &[1]];
    assert!(accepted(Rule::Hedge, 3, &weighted(&[0.3, 0.4], two)).is_empty());
    assert_eq!(accepted(Rule::Hedge, 3, &weighted(&[0.35, 0.4], two)), [1]);
}

#[test]
fn hedge_never_accepts_at_a_tie() {
    let params = RuleParams::new(2, None, 0.5);
    let ruling = rule_on(Rule::Hedge, &weighted(&[0.5, 0.5], &[&[1], &[2]]), &params);
    assert!(matches!(ruling, Ruling::Verify(_)));
    let ruling = rule_on(Rule::Hedge, &weighted(&[0.51, 0.49], &[&[1], &[2]]), &params);
    assert!(matches!(ruling, Ruling::Accept(tokens) if tokens == [1]));
}

#[test]
fn all_weights_reach_a_min_weight_of_one() {
    let proposed: Vec<&[TokenId]> = vec![&[1]; 7];
    let ruling = rule_on(Rule::Hedge, &ballots(7, &proposed), &RuleParams::new(7, None, 1.0));
    assert!(matches!(ruling, Ruling::Accept(_)), "rounding must not prevent the acceptance");
}

#[test]
fn verify_and_plugin_accept_nothing() {
    let same = ballots(2, &[&[1], &[1]]);
    assert!(accepted(Rule::Verify, 2, &same).is_empty());
    assert!(accepted(Rule::Plugin, 2, &same).is_empty());
}

#[test]
fn rule_names_are_those_of_scripts() {
    for rule in [Rule::Strict, Rule::Majority, Rule::AnyDisagree, Rule::Hedge] {
        assert_eq!(Rule::from_name(rule.name()), Some(rule));
    }
    assert_eq!(Rule::from_name("verify"), None);
    assert_eq!(Rule::from_name("Strict"), None);
}

/// `cargo test --release -p tightwad-consensus --test rules -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, meaningful in a release build only"]
fn ruling_takes_less_than_five_microseconds() {
    let tokens: Vec<TokenId> = (0..16).collect();
    let proposed: Vec<&[TokenId]> = vec![&tokens; 5];
    let five = ballots(5, &proposed);
    let params = RuleParams::new(5, None, 0.75);
    for rule in [Rule::Strict, Rule::Majority, Rule::AnyDisagree, Rule::Hedge] {
        let start = Instant::now();
        for _ in 0..10_000 {
            std::hint::black_box(rule_on(rule, std::hint::black_box(&five), &params));
        }
        let each = start.elapsed() / 10_000;
        println!("{rule:?}: {each:?}");
        assert!(each.as_nanos() < 5_000, "{rule:?} takes {each:?}");
    }
}
