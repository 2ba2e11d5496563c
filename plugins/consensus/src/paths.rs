//! What the target looks at: the ballots as paths, as long as their tokens are worth their rows.

use tightwad_plugin_sdk::{Ballot, TokenId};

use crate::ballots::agreeing;

/// Most rows of one verification.
pub const ROWS: usize = 64;

/// What a round takes, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    /// Whatever is verified: the race, and a pass over what is committed but was not evaluated yet.
    pub round: f64,
    /// Each row more; 0: unknown, and taken for nothing.
    pub row: f64,
}

/// Paths that were chosen, and what they bring.
struct Chosen {
    paths: Vec<Vec<TokenId>>,
    /// The chance of each that its next token is wrong.
    doubts: Vec<f64>,
    expected: f64,
    cost: f64,
    rows: usize,
}

/// One more path: where it leaves the others, and what is known of it.
struct Candidate<'a> {
    ballot: &'a Ballot,
    share: f64,
    /// Tokens that it has in common with a path that was chosen.
    fresh: usize,
    /// The path that it goes on with, where it begins with all of one.
    extends: Option<usize>,
    /// The chance that the paths it leaves are wrong there.
    parts: f64,
}

/// The paths with the most expected tokens a nanosecond, the heaviest ballot's first; none where a token of
/// the target's own is better than all. `share` says how often a drafter's next token is right, `longest`
/// how many tokens may be proposed at all.
#[must_use]
pub fn merge(
    ballots: &[Ballot],
    share: impl Fn(u32) -> f64,
    costs: Costs,
    longest: usize,
) -> Vec<Vec<TokenId>> {
    let mut order: Vec<&Ballot> = ballots.iter().collect();
    order.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    // The target's own token comes in any case.
    let mut chosen =
        Chosen { paths: Vec::new(), doubts: Vec::new(), expected: 1.0, cost: costs.round.max(1.0), rows: 0 };
    for ballot in order {
        let candidate = chosen.candidate(ballot, share(ballot.drafter));
        chosen.consider(&candidate, costs.row, longest);
    }
    chosen.paths
}

/// Paths that a plugin asks for: no more than may be verified at once.
#[must_use]
pub fn limited(paths: Vec<Vec<TokenId>>) -> Vec<Vec<TokenId>> {
    let mut room = ROWS;
    let cut = |mut path: Vec<TokenId>| {
        path.truncate(room);
        room -= path.len();
        path
    };
    paths.into_iter().map(cut).filter(|path| !path.is_empty()).collect()
}

impl Chosen {
    fn candidate<'a>(&self, ballot: &'a Ballot, share: f64) -> Candidate<'a> {
        let common: Vec<usize> = self.paths.iter().map(|path| agreeing(ballot, path)).collect();
        let fresh = common.iter().copied().max().unwrap_or(0);
        let at_fresh = || common.iter().enumerate().filter(|(_, common)| **common == fresh);
        let ended = |index: usize| self.paths[index].len() == fresh;
        let parts = at_fresh().filter(|(index, _)| !ended(*index)).map(|(index, _)| self.doubts[index]);
        Candidate {
            ballot,
            share,
            fresh,
            parts: parts.product(),
            extends: at_fresh().find(|(index, _)| ended(*index)).map(|(index, _)| index),
        }
    }

    /// Takes the path at its best length, if it is worth it.
    fn consider(&mut self, candidate: &Candidate<'_>, row: f64, longest: usize) {
        let Candidate { ballot, share, fresh, extends, parts } = *candidate;
        let (mut reach, mut gain) = (parts * share.powi(fresh as i32), 0.0);
        let mut best = None;
        let mut bar = self.expected / self.cost;
        for length in fresh + 1..=ballot.proposals.len().min(longest) {
            reach *= share;
            gain += reach;
            let rows = self.rows_of(length, extends);
            let rate = (self.expected + gain) / (self.cost + rows as f64 * row);
            if self.rows + rows > ROWS {
                break;
            }
            if rate > bar {
                bar = rate;
                best = Some((length, gain, rows));
            }
        }
        let Some((length, gain, rows)) = best else { return };
        self.expected += gain;
        self.cost += rows as f64 * row;
        self.rows += rows;
        let path: Vec<TokenId> = ballot.proposals[..length].iter().map(|proposal| proposal.token).collect();
        match extends {
            Some(index) => (self.paths[index], self.doubts[index]) = (path, 1.0 - share),
            None => {
                self.paths.push(path);
                self.doubts.push(1.0 - share);
            }
        }
    }

    /// Rows for a path of so many tokens. One that leaves another path repeats all before it, the row
    /// that the first token is chosen from included: engines give each path a sequence of its own.
    fn rows_of(&self, length: usize, extends: Option<usize>) -> usize {
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

    const FREE: Costs = Costs { round: 10.0, row: 0.0 };

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
        assert_eq!(paths, [vec![1, 2, 3], vec![1, 9, 4]], "prefixes and repetitions are no paths");
    }

    #[test]
    fn a_longer_ballot_takes_the_place_of_its_beginning() {
        let ballots = [ballot(0, 0.6, &[1, 2]), ballot(1, 0.3, &[7]), ballot(2, 0.1, &[1, 2, 3])];
        assert_eq!(merge(&ballots, |_| 0.8, FREE, 100), [vec![1, 2, 3], vec![7]]);
    }

    #[test]
    fn paths_end_where_rows_cost_more_than_they_bring() {
        let costs = Costs { round: 10.0, row: 1.0 };
        let said = [ballot(0, 1.0, &sixteen(0))];
        let length = |share: f64| merge(&said, |_| share, costs, 100).first().map_or(0, Vec::len);
        assert_eq!(length(0.999), 16);
        assert_eq!(length(0.0), 0, "the target's own token is better");
        assert!((2..8).contains(&length(0.7)), "{}", length(0.7));
        assert!(length(0.7) < length(0.9));
        assert_eq!(merge(&said, |_| 0.9, FREE, 5), [sixteen(0)[..5].to_vec()]);
    }

    #[test]
    fn a_second_opinion_must_pay_for_itself() {
        let said = [ballot(0, 0.7, &[1, 2, 3, 4]), ballot(1, 0.3, &[1, 2, 3, 9])];
        let paths = |row: f64| merge(&said, |_| 0.9, Costs { round: 10.0, row }, 100).len();
        assert_eq!(paths(0.01), 2);
        // It would repeat three rows for a token that is right in a few of a hundred rounds.
        assert_eq!(paths(1.0), 1);
    }

    #[test]
    fn there_are_at_most_64_rows() {
        let said: Vec<Ballot> = (0..8).map(|index| ballot(index, 0.1, &sixteen(index * 100))).collect();
        let paths = merge(&said, |_| 0.9, FREE, 100);
        let rows: usize = paths.iter().map(Vec::len).sum::<usize>() + paths.len() - 1;
        assert!(rows <= ROWS && rows > ROWS - 16, "{rows}");
        let asked = limited(vec![vec![1; 50], vec![], vec![2; 50], vec![3]]);
        assert_eq!(asked, [vec![1; 50], vec![2; 14]]);
        assert!(limited(vec![vec![]]).is_empty());
    }

    #[test]
    fn nonsense_is_no_path() {
        assert!(merge(&[], |_| 0.9, FREE, 100).is_empty());
        assert!(merge(&[ballot(0, f32::NAN, &[1])], |_| f64::NAN, FREE, 100).is_empty());
        assert!(merge(&[ballot(0, 1.0, &[1])], |_| 0.9, FREE, 0).is_empty());
    }
}
