//! Whole requests on a simulated host. Its clock runs only during computation.

mod simulation;

use simulation::{ProposedToken, Simulation, target_token_at};
use tightwad_consensus::driver::Driver;
use tightwad_plugin_sdk::{Ruling, TokenId};

const MS: u64 = 1_000_000;

fn run(host: &Simulation) {
    assert!(Driver::new(host).run().is_ok(), "the simulated host never fails");
    assert_eq!(host.output.borrow().len(), host.length, "every request ends");
}

fn is_target_output(host: &Simulation) -> bool {
    host.output.borrow().iter().enumerate().all(|(at, token)| *token == target_token_at(at))
}

/// Proposes the target's token.
fn right(at: usize) -> TokenId {
    target_token_at(at)
}

/// Proposes a wrong token; all wrong drafters propose the same one.
fn wrong(at: usize) -> TokenId {
    target_token_at(at) + 1
}

/// Is wrong at every fifth position.
fn wrong_every_fifth(at: usize) -> TokenId {
    target_token_at(at) + u32::from(at % 5 == 4)
}

#[test]
fn agreeing_drafters_leave_the_target_idle() {
    for rule in ["strict", "majority", "any_disagree", "hedge"] {
        let host = Simulation::new(rule, &[(right, MS), (right, MS), (right, MS)]);
        run(&host);
        assert!(is_target_output(&host), "{rule}");
        // The last token is the target's own: no proposal can come before it.
        assert!(host.passes.get() <= 1, "{rule}: {} passes", host.passes.get());
        assert_eq!(host.reported_rules.borrow().as_slice(), [(rule.to_owned(), String::new())]);
    }
}

#[test]
fn strict_and_any_disagree_verify_a_wrong_drafter() {
    for rule in ["strict", "any_disagree"] {
        let host = Simulation::new(rule, &[(wrong, MS), (right, MS), (right, MS)]);
        run(&host);
        assert!(is_target_output(&host), "{rule}");
        assert_eq!(host.unverified.get(), 0, "{rule}");
        assert!(host.passes.get() * 4 < host.length, "{rule}: the other drafts are useful");
    }
}

#[test]
fn majority_outvotes_one_wrong_drafter_but_not_two() {
    let one = Simulation::new("majority", &[(wrong, MS), (right, MS), (right, MS)]);
    run(&one);
    assert!(is_target_output(&one) && one.passes.get() <= 1);
    let mut two = Simulation::new("majority", &[(wrong, MS), (wrong, MS), (right, MS)]);
    two.set("audit_rate", 0.0);
    run(&two);
    assert!(!is_target_output(&two), "there were no audits");
}

#[test]
fn hedge_learns_which_drafters_are_wrong() {
    let host = Simulation::new("hedge", &[(wrong, MS), (right, MS), (wrong, MS)]);
    run(&host);
    assert!(is_target_output(&host));
    assert!(host.unverified.get() > host.length / 2, "{} without the target", host.unverified.get());
}

#[test]
fn audits_make_the_rule_stricter_for_later_requests_too() {
    let mut host = Simulation::new("majority", &[(wrong, MS), (wrong, MS), (right, MS)]);
    host.set("audit_rate", 1.0);
    run(&host);
    let reports = host.reported_rules.take();
    let names: Vec<&str> = reports.iter().map(|(rule, _)| rule.as_str()).collect();
    assert_eq!(names, ["majority", "strict"]);
    assert_eq!(reports[0].1, "");
    assert!(reports[1].1.starts_with("audits: the target agrees with 0 % of "), "{}", reports[1].1);
    // Two wrong drafters of three are not unanimous.
    host.next_request();
    run(&host);
    assert!(is_target_output(&host));
    assert_eq!(host.reported_rules.borrow().as_slice(), [("strict".to_owned(), String::new())]);
}

#[test]
fn request_that_ends_later_does_not_relax_the_rule() {
    let mut audited = Simulation::new("majority", &[(wrong, MS), (wrong, MS), (right, MS)]);
    audited.set("audit_rate", 1.0);
    run(&audited);
    let mut host = Simulation::new("majority", &[(right, MS), (right, MS), (right, MS)]);
    host.concurrent_state = Some(audited.saved_state.take());
    run(&host);
    host.concurrent_state = None;
    host.next_request();
    run(&host);
    assert_eq!(host.reported_rules.borrow()[0].0, "strict");
}

#[test]
fn unanimous_wrong_drafters_end_at_verify() {
    let mut host = Simulation::new("hedge", &[(wrong, MS), (wrong, MS), (wrong, MS)]);
    host.set("audit_rate", 1.0);
    run(&host);
    for _ in 0..3 {
        host.next_request();
        run(&host);
    }
    assert!(is_target_output(&host));
    assert_eq!(host.reported_rules.borrow().as_slice(), [("verify".to_owned(), String::new())]);
    assert_eq!(host.unverified.get(), 0);
    // Useless drafters cost little: nearly all tokens come from stretches of plain decoding.
    let plain = host.length as u64 * host.target_time_per_token;
    assert!(host.clock.get() < plain + plain / 4, "{} instead of {plain}", host.clock.get());
}

#[test]
fn straggler_costs_at_most_the_grace_period() {
    let time = |drafters: &[(ProposedToken, u64)]| {
        let host = Simulation::new("strict", drafters);
        run(&host);
        assert!(is_target_output(&host));
        host.clock.get()
    };
    let fast = time(&[(right, 10 * MS), (right, 10 * MS)]);
    let slow = time(&[(right, 10 * MS), (right, 10 * MS), (right, 200 * MS)]);
    assert!(slow < 2 * fast, "{slow} instead of {fast}");
    // Of two drafters, only the fast one's drafts arrive: the target verifies them.
    let alone = time(&[(right, 10 * MS), (right, 200 * MS)]);
    assert!(alone < 6 * fast, "{alone} instead of {fast}");
}

#[test]
fn dead_drafter_changes_only_the_quorum() {
    let mut host = Simulation::new("strict", &[(right, MS), (right, MS), (right, MS)]);
    host.dead = vec![1];
    run(&host);
    assert!(is_target_output(&host) && host.passes.get() <= 1);
}

#[test]
fn unavailable_drafter_keeps_its_index() {
    // One ballot of three is not a consensus, whichever drafters could be opened.
    let mut host = Simulation::new("strict", &[(wrong, MS), (right, MS), (right, MS)]);
    host.unavailable = vec![1, 2];
    run(&host);
    assert!(is_target_output(&host));
    assert_eq!(host.unverified.get(), 0);
    // Saved values belong to the drafter with the same index.
    let mut host = Simulation::new("majority", &[(wrong, MS), (wrong, MS), (right, MS)]);
    host.set("audit_rate", 1.0);
    run(&host);
    host.next_request();
    host.unavailable = vec![0];
    run(&host);
    assert_eq!(host.reported_rules.borrow()[0].0, "strict", "the rule stays as strict as audits made it");
    let before = host.saved_state.borrow().clone();
    assert!(before.starts_with("v1 3 "), "{before}");
    host.next_request();
    host.unavailable = vec![0, 1, 2];
    run(&host);
    assert!(is_target_output(&host) && host.accepts.get() == 0, "only the target is left");
}

#[test]
fn weight_of_a_dead_drafter_goes_to_the_others() {
    let mut host = Simulation::new("hedge", &[(right, MS), (right, MS), (right, MS)]);
    host.dead = vec![2];
    run(&host);
    assert!(is_target_output(&host));
    assert!(host.unverified.get() > host.length / 2, "{} without the target", host.unverified.get());
}

#[test]
fn target_without_drafters_decodes_in_stretches() {
    let mut host = Simulation::new("strict", &[(right, MS), (right, MS)]);
    host.dead = vec![0, 1];
    run(&host);
    assert!(is_target_output(&host));
    assert!(host.decodes.get() <= 7, "{} calls for 300 tokens", host.decodes.get());
    let none = Simulation::new("hedge", &[]);
    run(&none);
    assert!(is_target_output(&none));
}

#[test]
fn request_that_forbids_acceptance_is_verified() {
    let mut host = Simulation::new("majority", &[(right, MS), (right, MS)]);
    host.max_accepted = 0;
    run(&host);
    assert!(is_target_output(&host));
    assert_eq!(host.accepts.get(), 2, "the mode does not try again and again");
}

#[test]
fn target_chooses_where_the_request_forbids_tokens() {
    let mut host = Simulation::new("strict", &[(right, MS), (right, MS)]);
    host.max_accepted = 3;
    run(&host);
    assert!(is_target_output(&host));
    assert!(host.unverified.get() >= host.length / 8, "the rest of each ballot is verified");
}

#[test]
fn policy_rules_in_place_of_the_built_in_rule() {
    let mut host = Simulation::new("strict", &[(wrong, MS), (right, MS)]);
    host.policy = Some(|ballots| {
        let second = ballots.iter().find(|ballot| ballot.drafter == 1);
        second.map_or(Ruling::Decode(3), |ballot| Ruling::Accept(ballot.tokens()))
    });
    run(&host);
    assert!(is_target_output(&host) && host.passes.get() <= 1);
    assert_eq!(host.reported_rules.borrow()[0].0, "plugin");
}

#[test]
fn nonsense_of_a_policy_is_verified() {
    let nonsense: [simulation::Policy; 5] = [
        |_| Ruling::Accept(Vec::new()),
        |_| Ruling::Accept(vec![4_000_000_000]),
        |ballots| Ruling::Accept([ballots[0].tokens(), vec![1]].concat()),
        |_| Ruling::Verify(vec![Vec::new(), vec![7; 100_000]]),
        |_| Ruling::Decode(0),
    ];
    for policy in nonsense {
        let mut host = Simulation::new("strict", &[(right, MS), (wrong_every_fifth, MS)]);
        host.policy = Some(policy);
        run(&host);
        assert!(is_target_output(&host));
        assert_eq!(host.unverified.get(), 0);
    }
}

#[test]
fn policy_with_wrong_acceptances_is_overruled() {
    let mut host = Simulation::new("strict", &[(wrong, MS), (right, MS)]);
    host.policy = Some(|ballots| Ruling::Accept(ballots[0].tokens()));
    host.set("audit_rate", 1.0);
    run(&host);
    let names: Vec<String> = host.reported_rules.take().into_iter().map(|(rule, _)| rule).collect();
    assert_eq!(names, ["plugin", "verify"]);
    host.next_request();
    run(&host);
    assert!(is_target_output(&host));
    assert_eq!(host.reported_rules.borrow()[0].0, "verify");
}

#[test]
fn useful_drafters_gain_where_nothing_can_be_accepted() {
    let mut host = Simulation::new("strict", &[(wrong_every_fifth, MS), (wrong_every_fifth, MS)]);
    host.max_accepted = 0;
    run(&host);
    assert!(is_target_output(&host));
    let plain = host.length as u64 * host.target_time_per_token;
    assert!(2 * host.clock.get() < plain, "{} instead of {plain}", host.clock.get());
}

#[test]
fn slow_drafters_cost_little_where_nothing_can_be_accepted() {
    let mut host = Simulation::new("strict", &[(right, 800 * MS), (right, 800 * MS)]);
    host.max_accepted = 0;
    run(&host);
    assert!(is_target_output(&host));
    let plain = host.length as u64 * host.target_time_per_token;
    // Permanent racing would take 2.4 times as long.
    assert!(host.clock.get() < plain + plain * 3 / 4, "{} instead of {plain}", host.clock.get());
}
