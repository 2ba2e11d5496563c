//! Ballots as they are gone through: what they begin with, what is left of them, how right they were.

use tightwad_plugin_sdk::{Ballot, TokenId};

/// The token that `ballot` says at place `at`.
#[must_use]
pub fn says(ballot: &Ballot, at: usize) -> Option<TokenId> {
    ballot.proposals.get(at).map(|proposal| proposal.token)
}

/// True when `ballot` begins with `tokens`.
#[must_use]
pub fn begins(ballot: &Ballot, tokens: &[TokenId]) -> bool {
    agreeing(ballot, tokens) == tokens.len()
}

/// How many tokens, from the first on, `ballot` has in common with `tokens`.
#[must_use]
pub fn agreeing(ballot: &Ballot, tokens: &[TokenId]) -> usize {
    let both = ballot.proposals.iter().zip(tokens);
    both.take_while(|(proposal, token)| proposal.token == **token).count()
}

/// Goes on behind `tokens`. Ballots that said something else, or that say nothing more, are out.
pub fn advance(ballots: &mut Vec<Ballot>, tokens: &[TokenId]) {
    ballots.retain_mut(|ballot| {
        let stays = ballot.proposals.len() > tokens.len() && begins(ballot, tokens);
        if stays {
            ballot.proposals.drain(..tokens.len());
        }
        stays
    });
}

/// How right a ballot was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Score {
    /// Tokens before the first wrong one.
    pub right: usize,
    /// What follows a wrong token is no answer to what was committed, so there is at most one.
    pub wrong: usize,
}

impl Score {
    /// Compares `ballot` with tokens that the target chose. What was not reached says nothing.
    #[must_use]
    pub fn of(ballot: &Ballot, committed: &[TokenId]) -> Self {
        let right = agreeing(ballot, committed);
        let compared = ballot.proposals.len().min(committed.len());
        Self { right, wrong: usize::from(right < compared) }
    }

    /// The share of wrong tokens; `None` when nothing was compared.
    #[must_use]
    pub fn loss(self) -> Option<f64> {
        let compared = self.right + self.wrong;
        (compared > 0).then(|| self.wrong as f64 / compared as f64)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tightwad_plugin_sdk::Proposal;

    pub(crate) fn ballot(drafter: u32, weight: f32, tokens: &[TokenId]) -> Ballot {
        let proposal = |token: &TokenId| Proposal { token: *token, probability: 0.5 };
        Ballot { drafter, weight, proposals: tokens.iter().map(proposal).collect() }
    }

    #[test]
    fn ballots_go_on_behind_what_was_accepted() {
        let mut ballots =
            vec![ballot(0, 0.3, &[1, 2, 3]), ballot(1, 0.3, &[1, 2]), ballot(2, 0.3, &[1, 9, 3, 4])];
        advance(&mut ballots, &[1, 2]);
        let left: Vec<_> = ballots.iter().map(|ballot| (ballot.drafter, ballot.tokens())).collect();
        assert_eq!(left, [(0, vec![3])], "one ended there, one said something else");
        advance(&mut ballots, &[]);
        assert_eq!(ballots.len(), 1);
    }

    #[test]
    fn only_what_was_reached_is_scored() {
        let said = ballot(0, 1.0, &[1, 2, 3, 4]);
        assert_eq!(Score::of(&said, &[1, 2]), Score { right: 2, wrong: 0 });
        assert_eq!(Score::of(&said, &[1, 9, 3, 4]), Score { right: 1, wrong: 1 });
        assert_eq!(Score::of(&said, &[1, 2, 3, 4, 5]), Score { right: 4, wrong: 0 });
        assert_eq!(Score::of(&said, &[]).loss(), None);
        assert_eq!(Score::of(&said, &[9]).loss(), Some(1.0));
        assert_eq!(Score::of(&said, &[1, 9]).loss(), Some(0.5));
    }
}
