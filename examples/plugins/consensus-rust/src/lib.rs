//! A consensus policy for tightwad: a component of the world `tightwad:plugin/consensus-policy-plugin`.
//!
//! The rule: if two drafters propose the same token and both are sure of it, accept it.

use tightwad_plugin_sdk::{Ballot, ConsensusPolicy, Proposal, Ruling, TokenId, export_consensus_policy};

/// The probability from which on a drafter is sure of a token.
const MIN_PROBABILITY: f32 = 0.5;

/// The tokens, from the first on, that both ballots propose and both drafters are sure of.
fn agreed(one: &Ballot, other: &Ballot) -> Vec<TokenId> {
    let sure = |(a, b): &(&Proposal, &Proposal)| {
        a.token == b.token && a.probability.min(b.probability) >= MIN_PROBABILITY
    };
    one.proposals.iter().zip(&other.proposals).take_while(sure).map(|(proposal, _)| proposal.token).collect()
}

struct TwoOfAKind;

impl ConsensusPolicy for TwoOfAKind {
    const NAME: &'static str = "two-of-a-kind";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    // The host calls it in every round. `_drafter_count` includes drafters without a ballot.
    fn rule(ballots: &[Ballot], _drafter_count: u32) -> Ruling {
        let mut best = Vec::new();
        for (at, one) in ballots.iter().enumerate() {
            for other in &ballots[at + 1..] {
                let tokens = agreed(one, other);
                // The first of the longest.
                if tokens.len() > best.len() {
                    best = tokens;
                }
            }
        }
        if best.is_empty() {
            // No agreement: the target verifies every ballot (an empty list means all).
            Ruling::Verify(Vec::new())
        } else {
            // Commits the tokens without the target: this makes consensus fast.
            Ruling::Accept(best)
        }
    }
}

// Makes the type the component's export.
export_consensus_policy!(TwoOfAKind);
