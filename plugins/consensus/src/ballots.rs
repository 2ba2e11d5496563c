//! Operations on ballots: prefixes, advancing, scores.

use tightwad_plugin_sdk::{Ballot, TokenId};

/// The token that `ballot` proposes at position `at`.
#[must_use]
pub fn token_at(ballot: &Ballot, at: usize) -> Option<TokenId> {
    ballot.proposals.get(at).map(|proposal| proposal.token)
}

/// True if `ballot` starts with `tokens`.
#[must_use]
pub fn starts_with(ballot: &Ballot, tokens: &[TokenId]) -> bool {
    common_prefix(ballot, tokens) == tokens.len()
}

/// The number of tokens, from the first on, that `ballot` has in common with `tokens`.
#[must_use]
pub fn common_prefix(ballot: &Ballot, tokens: &[TokenId]) -> usize {
    let both = ballot.proposals.iter().zip(tokens);
    both.take_while(|(proposal, token)| proposal.token == **token).count()
}

/// Advances past `tokens`. Removes ballots that disagree, and ballots that end there.
pub fn advance(ballots: &mut Vec<Ballot>, tokens: &[TokenId]) {
    ballots.retain_mut(|ballot| {
        let stays = ballot.proposals.len() > tokens.len() && starts_with(ballot, tokens);
        if stays {
            ballot.proposals.drain(..tokens.len());
        }
        stays
    });
}

/// How far a ballot agrees with the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Score {
    /// Tokens before the first wrong one.
    pub right: usize,
    /// 0 or 1. Tokens after a wrong one continue another text, so they do not count.
    pub wrong: usize,
}

impl Score {
    /// Compares `ballot` with the target's own tokens. Tokens after `committed` do not count.
    #[must_use]
    pub fn of(ballot: &Ballot, committed: &[TokenId]) -> Self {
        let right = common_prefix(ballot, committed);
        let compared = ballot.proposals.len().min(committed.len());
        Self { right, wrong: usize::from(right < compared) }
    }

    /// The share of wrong tokens. `None`: nothing was compared.
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
    fn ballots_advance_past_accepted_tokens() {
        let mut ballots =
            vec![ballot(0, 0.3, &[1, 2, 3]), ballot(1, 0.3, &[1, 2]), ballot(2, 0.3, &[1, 9, 3, 4])];
        advance(&mut ballots, &[1, 2]);
        let left: Vec<_> = ballots.iter().map(|ballot| (ballot.drafter, ballot.tokens())).collect();
        assert_eq!(left, [(0, vec![3])], "one ballot ended, one disagreed");
        advance(&mut ballots, &[]);
        assert_eq!(ballots.len(), 1);
    }

    #[test]
    fn only_compared_tokens_are_scored() {
        let proposed = ballot(0, 1.0, &[1, 2, 3, 4]);
        assert_eq!(Score::of(&proposed, &[1, 2]), Score { right: 2, wrong: 0 });
        assert_eq!(Score::of(&proposed, &[1, 9, 3, 4]), Score { right: 1, wrong: 1 });
        assert_eq!(Score::of(&proposed, &[1, 2, 3, 4, 5]), Score { right: 4, wrong: 0 });
        assert_eq!(Score::of(&proposed, &[]).loss(), None);
        assert_eq!(Score::of(&proposed, &[9]).loss(), Some(1.0));
        assert_eq!(Score::of(&proposed, &[1, 9]).loss(), Some(0.5));
    }
}
