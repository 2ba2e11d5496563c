//! Whole requests on a simulated host: its clock only runs when somebody computes.

mod simulation;

use simulation::{Says, Simulation, TRUTH};
use tightwad_consensus::drive::Drive;
use tightwad_plugin_sdk::{Ruling, TokenId};

const MS: u64 = 1_000_000;

fn run(host: &Simulation) {
    assert!(Drive::new(host).run().is_ok(), "the simulated host never fails");
    assert_eq!(host.output.borrow().len(), host.length, "every request comes to its end");
}

fn truth(host: &Simulation) -> bool {
    host.output.borrow().iter().enumerate().all(|(at, token)| *token == TRUTH(at))
}

/// Says the truth.
fn right(at: usize) -> TokenId {
    TRUTH(at)
}

/// Says something else, and every liar the same.
fn lie(at: usize) -> TokenId {
    TRUTH(at) + 1
}

/// Is wrong at every fifth place.
fn fair(at: usize) -> TokenId {
    TRUTH(at) + u32::from(at % 5 == 4)
}

#[test]
fn drafters_that_agree_leave_the_target_alone() {
    for rule in ["strict", "majority", "any_disagree", "hedge"] {
        let host = Simulation::new(rule, &[(right, MS), (right, MS), (right, MS)]);
        run(&host);
        assert!(truth(&host), "{rule}");
        // The last token is the target's own where nothing can be proposed before it.
        assert!(host.passes.get() <= 1, "{rule}: {} passes", host.passes.get());
        assert_eq!(host.said.borrow().as_slice(), [(rule.to_owned(), String::new())]);
    }
}

#[test]
fn strict_and_any_disagree_ask_the_target_about_a_liar() {
    for rule in ["strict", "any_disagree"] {
        let host = Simulation::new(rule, &[(lie, MS), (right, MS), (right, MS)]);
        run(&host);
        assert!(truth(&host), "{rule}");
        assert_eq!(host.unverified.get(), 0, "{rule}");
        assert!(host.passes.get() * 4 < host.length, "{rule}: the others' drafts are of use");
    }
}

#[test]
fn majority_outvotes_a_liar_and_believes_two() {
    let one = Simulation::new("majority", &[(lie, MS), (right, MS), (right, MS)]);
    run(&one);
    assert!(truth(&one) && one.passes.get() <= 1);
    let mut two = Simulation::new("majority", &[(lie, MS), (lie, MS), (right, MS)]);
    two.set("audit_rate", 0.0);
    run(&two);
    assert!(!truth(&two), "nobody looked");
}

#[test]
fn hedge_learns_who_lies() {
    let host = Simulation::new("hedge", &[(lie, MS), (right, MS), (lie, MS)]);
    run(&host);
    assert!(truth(&host));
    assert!(host.unverified.get() > host.length / 2, "{} without the target", host.unverified.get());
}

#[test]
fn audits_make_the_rule_tighter_and_later_requests_know() {
    let mut host = Simulation::new("majority", &[(lie, MS), (lie, MS), (right, MS)]);
    host.set("audit_rate", 1.0);
    run(&host);
    let said = host.said.take();
    let names: Vec<&str> = said.iter().map(|(rule, _)| rule.as_str()).collect();
    assert_eq!(names, ["majority", "strict"]);
    assert_eq!(said[0].1, "");
    assert!(said[1].1.starts_with("audits: the target agrees with 0 % of "), "{}", said[1].1);
    // Two liars of three are no unanimity.
    host.again();
    run(&host);
    assert!(truth(&host));
    assert_eq!(host.said.borrow().as_slice(), [("strict".to_owned(), String::new())]);
}

#[test]
fn a_request_that_ends_later_does_not_loosen_the_rule_again() {
    let mut tight = Simulation::new("majority", &[(lie, MS), (lie, MS), (right, MS)]);
    tight.set("audit_rate", 1.0);
    run(&tight);
    let mut host = Simulation::new("majority", &[(right, MS), (right, MS), (right, MS)]);
    host.meanwhile = Some(tight.memory.take());
    run(&host);
    host.meanwhile = None;
    host.again();
    run(&host);
    assert_eq!(host.said.borrow()[0].0, "strict");
}

#[test]
fn unanimous_liars_end_at_verification() {
    let mut host = Simulation::new("hedge", &[(lie, MS), (lie, MS), (lie, MS)]);
    host.set("audit_rate", 1.0);
    run(&host);
    for _ in 0..3 {
        host.again();
        run(&host);
    }
    assert!(truth(&host));
    assert_eq!(host.said.borrow().as_slice(), [("verify".to_owned(), String::new())]);
    assert_eq!(host.unverified.get(), 0);
    // Useless drafters may cost little: nearly all tokens come from stretches of plain decoding.
    let plain = host.length as u64 * host.target_token;
    assert!(host.clock.get() < plain + plain / 4, "{} instead of {plain}", host.clock.get());
}

#[test]
fn a_drafter_twenty_times_slower_costs_the_grace_at_most() {
    let time = |drafters: &[(Says, u64)]| {
        let host = Simulation::new("strict", drafters);
        run(&host);
        assert!(truth(&host));
        host.clock.get()
    };
    let fast = time(&[(right, 10 * MS), (right, 10 * MS)]);
    let slow = time(&[(right, 10 * MS), (right, 10 * MS), (right, 200 * MS)]);
    assert!(slow < 2 * fast, "{slow} instead of {fast}");
    // Of two drafters, only the fast one's drafts are left: the target verifies them.
    let alone = time(&[(right, 10 * MS), (right, 200 * MS)]);
    assert!(alone < 6 * fast, "{alone} instead of {fast}");
}

#[test]
fn a_dead_drafter_changes_nothing_but_the_count() {
    let mut host = Simulation::new("strict", &[(right, MS), (right, MS), (right, MS)]);
    host.dead = vec![1];
    run(&host);
    assert!(truth(&host) && host.passes.get() <= 1);
}

#[test]
fn a_drafter_that_is_not_there_keeps_its_place() {
    // One voice of three is no consensus, whoever else could be opened.
    let mut host = Simulation::new("strict", &[(lie, MS), (right, MS), (right, MS)]);
    host.absent = vec![1, 2];
    run(&host);
    assert!(truth(&host));
    assert_eq!(host.unverified.get(), 0);
    // What was learned belongs to who it was learned of.
    let mut host = Simulation::new("majority", &[(lie, MS), (lie, MS), (right, MS)]);
    host.set("audit_rate", 1.0);
    run(&host);
    host.again();
    host.absent = vec![0];
    run(&host);
    assert_eq!(host.said.borrow()[0].0, "strict", "the rule stays as tight as audits made it");
    let before = host.memory.borrow().clone();
    assert!(before.starts_with("v1 3 "), "{before}");
    host.again();
    host.absent = vec![0, 1, 2];
    run(&host);
    assert!(truth(&host) && host.accepts.get() == 0, "only the target is left");
}

#[test]
fn the_weight_of_a_dead_drafter_goes_to_the_others() {
    let mut host = Simulation::new("hedge", &[(right, MS), (right, MS), (right, MS)]);
    host.dead = vec![2];
    run(&host);
    assert!(truth(&host));
    assert!(host.unverified.get() > host.length / 2, "{} without the target", host.unverified.get());
}

#[test]
fn without_drafters_the_target_decodes_in_stretches() {
    let mut host = Simulation::new("strict", &[(right, MS), (right, MS)]);
    host.dead = vec![0, 1];
    run(&host);
    assert!(truth(&host));
    assert!(host.decodes.get() <= 7, "{} calls for 300 tokens", host.decodes.get());
    let none = Simulation::new("hedge", &[]);
    run(&none);
    assert!(truth(&none));
}

#[test]
fn a_request_that_forbids_acceptance_is_verified() {
    let mut host = Simulation::new("majority", &[(right, MS), (right, MS)]);
    host.most_accepted = 0;
    run(&host);
    assert!(truth(&host));
    assert_eq!(host.accepts.get(), 2, "it is not tried again and again");
}

#[test]
fn what_is_forbidden_is_left_to_the_target() {
    let mut host = Simulation::new("strict", &[(right, MS), (right, MS)]);
    host.most_accepted = 3;
    run(&host);
    assert!(truth(&host));
    assert!(host.unverified.get() >= host.length / 8, "the rest of each block is verified");
}

#[test]
fn a_plugin_rules_in_place_of_the_built_in_rule() {
    let mut host = Simulation::new("strict", &[(lie, MS), (right, MS)]);
    host.policy = Some(|ballots| {
        let second = ballots.iter().find(|ballot| ballot.drafter == 1);
        second.map_or(Ruling::Decode(3), |ballot| Ruling::Accept(ballot.tokens()))
    });
    run(&host);
    assert!(truth(&host) && host.passes.get() <= 1);
    assert_eq!(host.said.borrow()[0].0, "plugin");
}

#[test]
fn nonsense_of_a_plugin_is_verified() {
    let nonsense: [simulation::Policy; 5] = [
        |_| Ruling::Accept(Vec::new()),
        |_| Ruling::Accept(vec![4_000_000_000]),
        |ballots| Ruling::Accept([ballots[0].tokens(), vec![1]].concat()),
        |_| Ruling::Verify(vec![Vec::new(), vec![7; 100_000]]),
        |_| Ruling::Decode(0),
    ];
    for policy in nonsense {
        let mut host = Simulation::new("strict", &[(right, MS), (fair, MS)]);
        host.policy = Some(policy);
        run(&host);
        assert!(truth(&host));
        assert_eq!(host.unverified.get(), 0);
    }
}

#[test]
fn a_plugin_whose_acceptances_are_wrong_is_overruled() {
    let mut host = Simulation::new("strict", &[(lie, MS), (right, MS)]);
    host.policy = Some(|ballots| Ruling::Accept(ballots[0].tokens()));
    host.set("audit_rate", 1.0);
    run(&host);
    let names: Vec<String> = host.said.take().into_iter().map(|(rule, _)| rule).collect();
    assert_eq!(names, ["plugin", "verify"]);
    host.again();
    run(&host);
    assert!(truth(&host));
    assert_eq!(host.said.borrow()[0].0, "verify");
}

#[test]
fn fair_drafters_are_of_use_where_nothing_can_be_accepted() {
    let mut host = Simulation::new("strict", &[(fair, MS), (fair, MS)]);
    host.most_accepted = 0;
    run(&host);
    assert!(truth(&host));
    let plain = host.length as u64 * host.target_token;
    assert!(2 * host.clock.get() < plain, "{} instead of {plain}", host.clock.get());
}

#[test]
fn drafters_slower_than_the_target_cost_little_where_nothing_can_be_accepted() {
    let mut host = Simulation::new("strict", &[(right, 800 * MS), (right, 800 * MS)]);
    host.most_accepted = 0;
    run(&host);
    assert!(truth(&host));
    let plain = host.length as u64 * host.target_token;
    // Racing all the time would take 2.4 times as long.
    assert!(host.clock.get() < plain + plain * 3 / 4, "{} instead of {plain}", host.clock.get());
}
