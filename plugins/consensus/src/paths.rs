//! The paths that the target verifies: ballots, cut where a token is no longer worth its row.

use tightwad_plugin_sdk::{Ballot, TokenId};

use crate::ballots::common_prefix;

/// Rows of one verification, at most.
pub const MAX_ROWS: usize = 64;

/// The costs of a round, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct RoundCosts {
    /// The race, and a pass over the committed tokens that the target did not evaluate yet.
    pub fixed: f64,
    /// Each verified row; 0: unknown, and treated as free.
    pub per_row: f64,
}

/// The chosen paths, and their expected tokens and cost.
struct PathSet {
    paths: Vec<Vec<TokenId>>,
    /// The chance of each path that its next token is wrong.
    p_wrong: Vec<f64>,
    expected: f64,
    cost: f64,
    rows: usize,
}

/// A further path.
struct Candidate<'a> {
    ballot: &'a Ballot,
    accuracy: f64,
    /// Tokens that it has in common with a chosen path.
    shared_tokens: usize,
    /// The chosen path that it extends.
    extends: Option<usize>,
    /// The chance that all paths it diverges from are wrong there.
    p_divergence: f64,
}

/// The paths with the most expected tokens per nanosecond, the heaviest ballot's first. There are none if decoding
/// without drafts is better. `accuracy` estimates how often a drafter's next token is right. `max_tokens` limits the
/// length of a path.
#[must_use]
pub fn merge(
    ballots: &[Ballot],
    accuracy: impl Fn(u32) -> f64,
    costs: RoundCosts,
    max_tokens: usize,
) -> Vec<Vec<TokenId>> {
    let mut order: Vec<&Ballot> = ballots.iter().collect();
    order.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    // The target's own token comes in any case.
    let mut set = PathSet {
        paths: Vec::new(),
        p_wrong: Vec::new(),
        expected: 1.0,
        cost: costs.fixed.max(1.0),
        rows: 0,
    };
    for ballot in order {
        let candidate = set.candidate(ballot, accuracy(ballot.drafter));
        set.try_add(&candidate, costs.per_row, max_tokens);
    }
    set.paths
}

/// Cuts a policy's paths to the rows of one verification.
#[must_use]
pub fn limit_rows(paths: Vec<Vec<TokenId>>) -> Vec<Vec<TokenId>> {
    let mut free_rows = MAX_ROWS;
    let cut = |mut path: Vec<TokenId>| {
        path.truncate(free_rows);
        free_rows -= path.len();
        path
    };
    paths.into_iter().map(cut).filter(|path| !path.is_empty()).collect()
}

impl PathSet {
    fn candidate<'a>(&self, ballot: &'a Ballot, accuracy: f64) -> Candidate<'a> {
        let common: Vec<usize> = self.paths.iter().map(|path| common_prefix(ballot, path)).collect();
        let shared_tokens = common.iter().copied().max().unwrap_or(0);
        let at_divergence = || common.iter().enumerate().filter(|(_, common)| **common == shared_tokens);
        let ended = |index: usize| self.paths[index].len() == shared_tokens;
        let p_divergence =
            at_divergence().filter(|(index, _)| !ended(*index)).map(|(index, _)| self.p_wrong[index]);
        Candidate {
            ballot,
            accuracy,
            shared_tokens,
            p_divergence: p_divergence.product(),
            extends: at_divergence().find(|(index, _)| ended(*index)).map(|(index, _)| index),
        }
    }

    /// Adds the path at its best length, if that improves the rate.
    fn try_add(&mut self, candidate: &Candidate<'_>, per_row: f64, max_tokens: usize) {
        let Candidate { ballot, accuracy, shared_tokens, extends, p_divergence } = *candidate;
        let (mut reach, mut gain) = (p_divergence * accuracy.powi(shared_tokens as i32), 0.0);
        let mut best = None;
        let mut best_rate = self.expected / self.cost;
        for length in shared_tokens + 1..=ballot.proposals.len().min(max_tokens) {
            reach *= accuracy;
            gain += reach;
            let rows = self.added_rows(length, extends);
            let rate = (self.expected + gain) / (self.cost + rows as f64 * per_row);
            if self.rows + rows > MAX_ROWS {
                break;
            }
            if rate > best_rate {
                best_rate = rate;
                best = Some((length, gain, rows));
            }
        }
        let Some((length, gain, rows)) = best else { return };
        self.expected += gain;
        self.cost += rows as f64 * per_row;
        self.rows += rows;
        let path: Vec<TokenId> = ballot.proposals[..length].iter().map(|proposal| proposal.token).collect();
        match extends {
            Some(index) => (self.paths[index], self.p_wrong[index]) = (path, 1.0 - accuracy),
            None => {
                self.paths.push(path);
                self.p_wrong.push(1.0 - accuracy);
            }
        }
    }

    /// The rows of a path with `length` tokens. A path that diverges repeats the rows before its divergence, and the
    /// row before its first token: engines give each path a sequence of its own.
    fn added_rows(&self, length: usize, extends: Option<usize>) -> usize {
        match extends {
            Some(index) => length - self.paths[index].len(),
            None if self.paths.is_empty() => length,
            None => length + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ballots::tests::ballot;

    const FREE: RoundCosts = RoundCosts { fixed: 10.0, per_row: 0.0 };

    fn sixteen(from: TokenId) -> Vec<TokenId> {
        (from..from + 16).collect()
    }

    #[test]
    fn ballots_become_distinct_paths_heaviest_first() {
        let ballots = [
            ballot(0, 0.2, &[1, 2]),
            ballot(1, 0.5, &[1, 2, 3]),
            ballot(2, 0.2, &[1, 9]),
            ballot(3, 0.1, &[1, 9, 4]),
            ballot(4, 0.0, &[1, 2, 3]),
        ];
        let paths = merge(&ballots, |_| 0.8, FREE, 100);
        assert_eq!(paths, [vec![1, 2, 3], vec![1, 9, 4]], "prefixes and repetitions add no paths");
    }

    #[test]
    fn longer_ballot_replaces_its_prefix() {
        let ballots = [ballot(0, 0.6, &[1, 2]), ballot(1, 0.3, &[7]), ballot(2, 0.1, &[1, 2, 3])];
        assert_eq!(merge(&ballots, |_| 0.8, FREE, 100), [vec![1, 2, 3], vec![7]]);
    }

    #[test]
    fn paths_end_where_rows_cost_more_than_they_gain() {
        let costs = RoundCosts { fixed: 10.0, per_row: 1.0 };
        let ballots = [ballot(0, 1.0, &sixteen(0))];
        let length = |accuracy: f64| merge(&ballots, |_| accuracy, costs, 100).first().map_or(0, Vec::len);
        assert_eq!(length(0.999), 16);
        assert_eq!(length(0.0), 0, "the target's own token is better");
        assert!((2..8).contains(&length(0.7)), "{}", length(0.7));
        assert!(length(0.7) < length(0.9));
        assert_eq!(merge(&ballots, |_| 0.9, FREE, 5), [sixteen(0)[..5].to_vec()]);
    }

    #[test]
    fn second_path_must_pay_for_itself() {
        let ballots = [ballot(0, 0.7, &[1, 2, 3, 4]), ballot(1, 0.3, &[1, 2, 3, 9])];
        let paths = |per_row: f64| merge(&ballots, |_| 0.9, RoundCosts { fixed: 10.0, per_row }, 100).len();
        assert_eq!(paths(0.01), 2);
        // It would repeat three rows for a token that is right in a few of a hundred rounds.
        assert_eq!(paths(1.0), 1);
    }

    #[test]
    fn paths_have_at_most_64_rows() {
        let ballots: Vec<Ballot> = (0..8).map(|index| ballot(index, 0.1, &sixteen(index * 100))).collect();
        let paths = merge(&ballots, |_| 0.9, FREE, 100);
        let rows: usize = paths.iter().map(Vec::len).sum::<usize>() + paths.len() - 1;
        assert!(rows <= MAX_ROWS && rows > MAX_ROWS - 16, "{rows}");
        let asked = limit_rows(vec![vec![1; 50], vec![], vec![2; 50], vec![3]]);
        assert_eq!(asked, [vec![1; 50], vec![2; 14]]);
        assert!(limit_rows(vec![vec![]]).is_empty());
    }

    #[test]
    fn nonsense_adds_no_path() {
        assert!(merge(&[], |_| 0.9, FREE, 100).is_empty());
        assert!(merge(&[ballot(0, f32::NAN, &[1])], |_| f64::NAN, FREE, 100).is_empty());
        assert!(merge(&[ballot(0, 1.0, &[1])], |_| 0.9, FREE, 0).is_empty());
    }
}
