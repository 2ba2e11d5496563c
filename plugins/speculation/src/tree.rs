//! Several drafters' continuations as one tree: which of them are worth a row.
//!
//! Nodes are chosen by the chance that they are reached, as in Sequoia (arXiv:2402.12374) and EAGLE-2
//! (arXiv:2406.16858); a path that is verified beside others is evaluated from its first token on.

/// Most paths of one verification.
pub(crate) const PATHS: usize = 8;
/// Most tokens of all paths together: what the host verifies at once.
pub(crate) const MOST: usize = 256;

/// What one drafter says.
#[derive(Debug, Clone, PartialEq)]
pub struct Ballot {
    /// Its place in the script's list.
    pub drafter: usize,
    /// What comes next.
    pub tokens: Vec<u32>,
    /// The drafter's own probability for each.
    pub probabilities: Vec<f32>,
    /// The chance of each to be accepted when all before it were.
    pub chances: Vec<f64>,
}

impl Ballot {
    /// How many of its tokens `committed` begins with.
    #[must_use]
    pub fn agreed(&self, committed: &[u32]) -> usize {
        common(&self.tokens, committed)
    }
}

/// Continuations to verify in one pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tree {
    /// The first is the most promising one.
    pub paths: Vec<Vec<u32>>,
    /// The place of the ballot that each path comes from.
    pub ballots: Vec<usize>,
    /// Rows of the pass, the token before the paths counted once a path.
    pub rows: usize,
}

/// What a tree is weighed by.
pub struct Terms<F> {
    /// Most tokens of a path.
    pub longest: usize,
    /// The rate that is reached without drafts, in tokens a nanosecond.
    pub bar: f64,
    /// How often another path was right where the first was wrong.
    pub second: f64,
    /// What a pass of so many rows takes; `None` where its failure cannot be afforded.
    pub cost: F,
}

/// Grows a tree path by path while its rate, in expected tokens a nanosecond, grows; empty where nothing is
/// worth verifying.
pub fn grow<F: Fn(usize) -> Option<f64>>(ballots: &[Ballot], terms: &Terms<F>) -> Tree {
    let mut tree = Tree::default();
    let (mut expected, mut rate) = (1.0, terms.bar);
    while tree.paths.len() < PATHS.min(ballots.len()) {
        let unused = (0..ballots.len()).filter(|index| !tree.ballots.contains(index));
        let options = unused.filter_map(|index| tree.option(ballots, index, expected, rate, terms));
        let better = |a: Branch, b: Branch| if b.rate > a.rate { b } else { a };
        let Some(best) = options.reduce(better) else { break };
        expected += best.gain;
        rate = best.rate;
        tree.rows += best.length + 1;
        tree.paths.push(ballots[best.index].tokens[..best.length].to_vec());
        tree.ballots.push(best.index);
    }
    tree
}

/// What one more path would bring.
struct Branch {
    index: usize,
    length: usize,
    gain: f64,
    rate: f64,
}

impl Tree {
    /// The best length of the ballot at `index` as one more path; `None` where it makes the tree no better.
    fn option<F: Fn(usize) -> Option<f64>>(
        &self,
        ballots: &[Ballot],
        index: usize,
        expected: f64,
        bar: f64,
        terms: &Terms<F>,
    ) -> Option<Branch> {
        let ballot = &ballots[index];
        let shared = self.paths.iter().map(|path| common(path, &ballot.tokens)).max().unwrap_or(0);
        // What goes on where a path was cut would not pay there either.
        if self.paths.iter().any(|path| path.len() == shared) {
            return None;
        }
        let taken: usize = self.paths.iter().map(Vec::len).sum();
        let (mut gain, mut best, mut bar) = (0.0, None, bar);
        let mut reach = 1.0;
        if !self.paths.is_empty() {
            let before: f64 = ballot.chances.iter().take(shared).product();
            reach = before * self.doubt(ballots, shared);
        }
        for length in shared + 1..=ballot.tokens.len().min(terms.longest) {
            // At the branch itself the others are taken to be wrong.
            let branches = length == shared + 1 && !self.paths.is_empty();
            reach *= if branches { terms.second } else { ballot.chances[length - 1] };
            gain += reach;
            // Longer ones cost more still.
            if taken + length > MOST {
                break;
            }
            let Some(cost) = (terms.cost)(self.rows + length + 1) else { break };
            let rate = (expected + gain) / cost;
            if rate > bar {
                bar = rate;
                best = Some(Branch { index, length, gain, rate });
            }
        }
        best
    }

    /// The chance that all paths that go through the first `depth` tokens are wrong there: that of the first
    /// of them.
    fn doubt(&self, ballots: &[Ballot], depth: usize) -> f64 {
        let first = self.ballots.first().map(|index| &ballots[*index]);
        first.and_then(|first| first.chances.get(depth)).map_or(0.5, |chance| 1.0 - chance)
    }
}

/// Tokens that both begin with.
pub fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(drafter: usize, tokens: &[u32], chance: f64) -> Ballot {
        Ballot {
            drafter,
            tokens: tokens.to_vec(),
            probabilities: vec![chance as f32; tokens.len()],
            chances: vec![chance; tokens.len()],
        }
    }

    fn grown(ballots: &[Ballot], second: f64, row: f64) -> Tree {
        let cost = |rows: usize| Some(10.0 + row * rows as f64);
        grow(ballots, &Terms { longest: 8, bar: 1.0 / (10.0 + row), second, cost })
    }

    #[test]
    fn where_rows_are_cheap_every_branch_is_looked_at() {
        let ballots = [ballot(0, &[1, 2, 3], 0.6), ballot(1, &[1, 9, 8], 0.6), ballot(2, &[5, 6], 0.6)];
        let tree = grown(&ballots, 0.5, 0.01);
        assert_eq!(tree.paths.len(), 3);
        assert_eq!(tree.paths[0], [1, 2, 3]);
        assert_eq!(tree.rows, 4 + 4 + 3);
    }

    #[test]
    fn where_they_cost_as_much_as_a_pass_one_path_is_enough() {
        let ballots = [ballot(0, &[1, 2, 3], 0.9), ballot(1, &[1, 9, 8], 0.6)];
        assert_eq!(grown(&ballots, 0.5, 2.0).paths, [vec![1, 2, 3]]);
        assert_eq!(grown(&ballots, 0.0, 0.01).paths, [vec![1, 2, 3]], "a branch that is never right");
    }

    #[test]
    fn nothing_is_verified_where_nothing_pays() {
        assert_eq!(grown(&[ballot(0, &[1], 0.05)], 0.5, 10.0), Tree::default());
        assert_eq!(grown(&[], 0.5, 0.1), Tree::default());
    }

    #[test]
    fn what_cannot_be_afforded_leaves_shorter_paths() {
        let ballots = [ballot(0, &[1, 2, 3, 4, 5, 6], 0.9)];
        let cost = |rows: usize| (rows <= 4).then_some(10.0 + 0.1 * rows as f64);
        let tree = grow(&ballots, &Terms { longest: 8, bar: 0.09, second: 0.3, cost });
        assert_eq!(tree.paths, [vec![1, 2, 3]]);
    }

    #[test]
    fn all_paths_together_are_no_longer_than_the_host_takes() {
        let ballots: Vec<Ballot> = (0..8).map(|of| ballot(of, &[of as u32 + 1; 64], 0.99)).collect();
        let cost = |rows: usize| Some(1000.0 + 1e-6 * rows as f64);
        let tree = grow(&ballots, &Terms { longest: 64, bar: 1e-9, second: 0.9, cost });
        assert!(tree.paths.len() > 3, "{}", tree.paths.len());
        assert!(tree.paths.iter().map(Vec::len).sum::<usize>() <= MOST);
    }

    #[test]
    fn ballots_that_say_the_same_are_one_path() {
        let ballots = [ballot(0, &[1, 2, 3], 0.9), ballot(1, &[1, 2, 3], 0.9), ballot(2, &[1, 2], 0.9)];
        assert_eq!(grown(&ballots, 0.9, 0.01).paths, [vec![1, 2, 3]]);
    }
}
