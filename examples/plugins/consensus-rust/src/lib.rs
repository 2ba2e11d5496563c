//! A consensus policy for tightwad, as a component of the world `tightwad:plugin/voting`.
//!
//! The rule: where two drafters say the same, and both are sure of it, believe them.

use tightwad_plugin_sdk::{Ballot, ConsensusPolicy, Proposal, Ruling, Token, export_consensus_policy};

/// The least probability that a drafter must have given a token.
const SURE: f32 = 0.5;

/// The tokens from the start on that both ballots have and both drafters are sure of.
fn agreed(one: &Ballot, other: &Ballot) -> Vec<Token> {
    let sure =
        |(a, b): &(&Proposal, &Proposal)| a.token == b.token && a.probability.min(b.probability) >= SURE;
    one.proposals.iter().zip(&other.proposals).take_while(sure).map(|(proposal, _)| proposal.token).collect()
}

struct TwoOfAKind;

impl ConsensusPolicy for TwoOfAKind {
    const NAME: &'static str = "two-of-a-kind";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    // Asked whenever drafters have proposed; `_drafters` counts those without a ballot too.
    fn rule(ballots: &[Ballot], _drafters: u32) -> Ruling {
        let mut best = Vec::new();
        for (at, one) in ballots.iter().enumerate() {
            for other in &ballots[at + 1..] {
                let tokens = agreed(one, other);
                if tokens.len() > best.len() {
                    best = tokens;
                }
            }
        }
        if best.is_empty() {
            // No agreement: the target looks at every ballot (an empty list stands for all).
            Ruling::Verify(Vec::new())
        } else {
            // Committed without asking the target: this is what makes consensus fast.
            Ruling::Accept(best)
        }
    }
}

// Makes it what the component exports.
export_consensus_policy!(TwoOfAKind);
