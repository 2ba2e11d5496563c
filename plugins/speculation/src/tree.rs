//! Continuations of several drafters as one tree, with the branches that are worth their rows.
//!
//! Nodes are chosen by the chance that they are reached, as in Sequoia (arXiv:2402.12374) and EAGLE-2
//! (arXiv:2406.16858). A path beside others needs rows from its first token on.

/// Paths of one verification, at most.
pub(crate) const MAX_PATHS: usize = 8;
/// Tokens of all paths together, at most: the host's limit of one verification.
pub(crate) const MAX_TREE_TOKENS: usize = 256;

/// The continuation that one drafter proposes.
#[derive(Debug, Clone, PartialEq)]
pub struct Ballot {
    /// The drafter's index.
    pub drafter: usize,
    /// The proposed tokens.
    pub tokens: Vec<u32>,
    /// The drafter's own probability of each token.
    pub probabilities: Vec<f32>,
    /// The chance that the target accepts each token after all tokens before it.
    pub chances: Vec<f64>,
}

impl Ballot {
    /// The number of its first tokens that agree with `committed`.
    #[must_use]
    pub fn agreed(&self, committed: &[u32]) -> usize {
        common_prefix(&self.tokens, committed)
    }
}

/// Continuations to verify in one pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tree {
    /// The first is the most promising one.
    pub paths: Vec<Vec<u32>>,
    /// The index of each path's ballot.
    pub ballots: Vec<usize>,
    /// Rows of the pass. The token before the paths counts once per path.
    pub rows: usize,
}

/// The parameters by which a tree is weighed.
pub struct TreeParams<F> {
    /// Tokens of a path, at most.
    pub max_path_tokens: usize,
    /// The rate without drafts, in tokens per nanosecond. A tree must beat it.
    pub min_rate: f64,
    /// How often another path is right where the first is wrong.
    pub branch_acceptance: f64,
    /// The cost of a pass with this many rows, in nanoseconds. `None`: the budget does not cover its failure.
    pub cost: F,
}

/// Grows a tree path by path while its rate rises, in expected tokens per nanosecond. The tree is empty if nothing is
/// worth verifying.
pub fn grow<F: Fn(usize) -> Option<f64>>(ballots: &[Ballot], params: &TreeParams<F>) -> Tree {
    let mut tree = Tree::default();
    let (mut expected, mut rate) = (1.0, params.min_rate);
    while tree.paths.len() < MAX_PATHS.min(ballots.len()) {
        let unused = (0..ballots.len()).filter(|index| !tree.ballots.contains(index));
        let options = unused.filter_map(|index| tree.best_branch(ballots, index, expected, rate, params));
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

/// The gain of one more path.
struct Branch {
    index: usize,
    length: usize,
    gain: f64,
    rate: f64,
}

impl Tree {
    /// The best length of the ballot at `index` as one more path. `None`: the path does not improve the tree.
    fn best_branch<F: Fn(usize) -> Option<f64>>(
        &self,
        ballots: &[Ballot],
        index: usize,
        expected: f64,
        min_rate: f64,
        params: &TreeParams<F>,
    ) -> Option<Branch> {
        let ballot = &ballots[index];
        let shared = self.paths.iter().map(|path| common_prefix(path, &ballot.tokens)).max().unwrap_or(0);
        // A continuation of a cut path does not pay either.
        if self.paths.iter().any(|path| path.len() == shared) {
            return None;
        }
        let taken: usize = self.paths.iter().map(Vec::len).sum();
        let (mut gain, mut best, mut min_rate) = (0.0, None, min_rate);
        let mut reach = 1.0;
        if !self.paths.is_empty() {
            let before: f64 = ballot.chances.iter().take(shared).product();
            reach = before * self.p_divergence(ballots, shared);
        }
        for length in shared + 1..=ballot.tokens.len().min(params.max_path_tokens) {
            // At the branch itself the estimate assumes that the other paths are wrong.
            let branches = length == shared + 1 && !self.paths.is_empty();
            reach *= if branches { params.branch_acceptance } else { ballot.chances[length - 1] };
            gain += reach;
            // Longer paths cost more.
            if taken + length > MAX_TREE_TOKENS {
                break;
            }
            let Some(cost) = (params.cost)(self.rows + length + 1) else { break };
            let rate = (expected + gain) / cost;
            if rate > min_rate {
                min_rate = rate;
                best = Some(Branch { index, length, gain, rate });
            }
        }
        best
    }

    /// The chance that all paths through the first `depth` tokens are wrong after them. The first path's chance
    /// stands for all of them.
    fn p_divergence(&self, ballots: &[Ballot], depth: usize) -> f64 {
        let first = self.ballots.first().map(|index| &ballots[*index]);
        first.and_then(|first| first.chances.get(depth)).map_or(0.5, |chance| 1.0 - chance)
    }
}

/// The number of tokens that both begin with.
pub fn common_prefix(a: &[u32], b: &[u32]) -> usize {
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

    fn tree_for(ballots: &[Ballot], branch_acceptance: f64, row_cost: f64) -> Tree {
        let cost = |rows: usize| Some(10.0 + row_cost * rows as f64);
        let params =
            TreeParams { max_path_tokens: 8, min_rate: 1.0 / (10.0 + row_cost), branch_acceptance, cost };
        grow(ballots, &params)
    }

    #[test]
    fn tree_has_every_branch_where_rows_are_cheap() {
        let ballots = [ballot(0, &[1, 2, 3], 0.6), ballot(1, &[1, 9, 8], 0.6), ballot(2, &[5, 6], 0.6)];
        let tree = tree_for(&ballots, 0.5, 0.01);
        assert_eq!(tree.paths.len(), 3);
        assert_eq!(tree.paths[0], [1, 2, 3]);
        assert_eq!(tree.rows, 4 + 4 + 3);
    }

    #[test]
    fn tree_has_one_path_where_rows_are_expensive() {
        let ballots = [ballot(0, &[1, 2, 3], 0.9), ballot(1, &[1, 9, 8], 0.6)];
        assert_eq!(tree_for(&ballots, 0.5, 2.0).paths, [vec![1, 2, 3]]);
        assert_eq!(tree_for(&ballots, 0.0, 0.01).paths, [vec![1, 2, 3]], "a branch that is never right");
    }

    #[test]
    fn tree_is_empty_where_nothing_pays() {
        assert_eq!(tree_for(&[ballot(0, &[1], 0.05)], 0.5, 10.0), Tree::default());
        assert_eq!(tree_for(&[], 0.5, 0.1), Tree::default());
    }

    #[test]
    fn paths_are_shorter_where_the_budget_ends() {
        let ballots = [ballot(0, &[1, 2, 3, 4, 5, 6], 0.9)];
        let cost = |rows: usize| (rows <= 4).then_some(10.0 + 0.1 * rows as f64);
        let params = TreeParams { max_path_tokens: 8, min_rate: 0.09, branch_acceptance: 0.3, cost };
        let tree = grow(&ballots, &params);
        assert_eq!(tree.paths, [vec![1, 2, 3]]);
    }

    #[test]
    fn paths_together_stay_within_the_host_limit() {
        let ballots: Vec<Ballot> = (0..8).map(|of| ballot(of, &[of as u32 + 1; 64], 0.99)).collect();
        let cost = |rows: usize| Some(1000.0 + 1e-6 * rows as f64);
        let params = TreeParams { max_path_tokens: 64, min_rate: 1e-9, branch_acceptance: 0.9, cost };
        let tree = grow(&ballots, &params);
        assert!(tree.paths.len() > 3, "{}", tree.paths.len());
        assert!(tree.paths.iter().map(Vec::len).sum::<usize>() <= MAX_TREE_TOKENS);
    }

    #[test]
    fn equal_ballots_become_one_path() {
        let ballots = [ballot(0, &[1, 2, 3], 0.9), ballot(1, &[1, 2, 3], 0.9), ballot(2, &[1, 2], 0.9)];
        assert_eq!(tree_for(&ballots, 0.9, 0.01).paths, [vec![1, 2, 3]]);
    }
}
