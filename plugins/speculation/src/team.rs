//! All drafters at once, as one more drafter: the controller knows what a race takes and how far the trees
//! that come of it are accepted, and weighs them by the same rule as a single drafter.

use crate::acceptance::Acceptance;
use crate::controller::{Controller, Drafter, MARGIN};
use crate::cost::Drafting;
use crate::tree::{Ballot, Terms, Tree, common, grow};

/// Rows for each token of depth, before any tree was seen.
const SPREAD: f64 = 1.5;
/// What one observation leaves of the earlier ones.
const DECAY: f64 = 0.95;
/// How often a second path is right where the first is wrong, before any was seen; and the weight of that.
const PRIOR: (f64, f64) = (0.3, 4.0);

/// What is known of drafters that propose at once.
#[derive(Debug, Clone)]
pub(crate) struct Team {
    /// Its place among the drafters: behind all of them.
    index: usize,
    hits: f64,
    trials: f64,
}

impl Team {
    /// Notes whether another path was right where the first was not, if any branched off there.
    fn compare(&mut self, paths: &[Vec<u32>], committed: &[u32]) {
        let Some((first, others)) = paths.split_first() else { return };
        let agreed = common(first, committed);
        let Some(right) = committed.get(agreed).filter(|_| agreed < first.len()) else { return };
        let branches = others.iter().filter(|path| common(path, first) == agreed);
        let said: Vec<u32> = branches.filter_map(|path| path.get(agreed).copied()).collect();
        if !said.is_empty() {
            self.hits = self.hits * DECAY + f64::from(u8::from(said.contains(right)));
            self.trials = self.trials * DECAY + 1.0;
        }
    }
}

impl Controller {
    /// Lets drafters that cost something also propose at once, where there are several. `shared`: those that
    /// compute where the target does, one after the other.
    #[must_use]
    pub fn with_team(mut self, shared: &[bool]) -> Self {
        let members: Vec<usize> =
            (0..self.drafters.len()).filter(|index| self.drafters[*index].costs()).collect();
        if members.len() < 2 {
            return self;
        }
        let time = |of: fn(&Drafter) -> f64| {
            let times = || members.iter().map(|index| (shared[*index], of(&self.drafters[*index])));
            let together: f64 = times().filter(|(shared, _)| *shared).map(|(_, time)| time).sum();
            times().map(|(_, time)| time).fold(together, f64::max)
        };
        let token = time(|drafter| drafter.drafting.cost(9) - drafter.drafting.cost(8));
        let call = time(|drafter| drafter.drafting.cost(0));
        let startup = time(|drafter| drafter.startup);
        self.team = Some(Team { index: self.drafters.len(), hits: 0.0, trials: 0.0 });
        self.drafters.push(Drafter {
            acceptance: Acceptance::default(),
            drafting: Drafting::expecting(token, call),
            overlaps: false,
            startup,
            free: false,
            gone: false,
            spread: SPREAD,
            refused: 0,
            doubted: 0,
        });
        self
    }

    /// The place of all drafters together, where they may propose at once.
    #[must_use]
    pub fn team(&self) -> Option<usize> {
        self.team.as_ref().map(|team| team.index)
    }

    /// Nanoseconds after which a race for `max` tokens is given up.
    #[must_use]
    pub fn race_limit(&self, members: &[usize], max: u32) -> u64 {
        let slowest = members.iter().map(|index| &self.drafters[*index]).filter(|drafter| !drafter.gone);
        let slowest = slowest.map(|drafter| drafter.startup + drafter.drafting.cost(max as usize));
        (3.0 * slowest.fold(0.0, f64::max)).max(5e7) as u64
    }

    /// The chances of a ballot's tokens.
    #[must_use]
    pub fn ballot(&self, drafter: usize, tokens: Vec<u32>, probabilities: Vec<f32>) -> Ballot {
        let acceptance = &self.drafters[drafter].acceptance;
        let chances = probabilities.iter().map(|probability| acceptance.given(*probability)).collect();
        Ballot { drafter, tokens, probabilities, chances }
    }

    /// What of the ballots is worth verifying.
    #[must_use]
    pub fn tree(&self, ballots: &[Ballot], remaining: u32) -> Tree {
        let (Some(one), Some(team)) = (self.verification.one(), &self.team) else { return Tree::default() };
        let known = &self.drafters[team.index].acceptance;
        let cost = |rows: usize| {
            let cost = self.verification.cost(rows);
            self.affordable(cost - one, one, known).then_some(cost)
        };
        let longest = (self.max_draft as usize).min(remaining.saturating_sub(1) as usize);
        let second = (team.hits + PRIOR.0 * PRIOR.1) / (team.trials + PRIOR.1);
        grow(ballots, &Terms { longest, bar: MARGIN / one, second, cost })
    }

    /// Notes that all of `members` have read the prompt.
    pub fn raced(&mut self, members: &[usize]) {
        for index in members {
            self.drafters[*index].startup = 0.0;
        }
    }

    /// Notes the verification of a tree, of which `accepted` tokens of one path were accepted; every ballot is
    /// compared with what was `committed`. The pass had so many rows, and took so many nanoseconds.
    pub fn grown(
        &mut self,
        ballots: &[Ballot],
        tree: &Tree,
        committed: &[u32],
        accepted: usize,
        (rows, nanoseconds): (usize, u64),
    ) {
        let Some(team) = self.team.as_mut() else { return };
        team.compare(&tree.paths, committed);
        let index = team.index;
        for ballot in ballots {
            let compared = ballot.tokens.len().min(committed.len());
            let agreed = ballot.agreed(&committed[..compared]);
            self.drafters[ballot.drafter].acceptance.observe(&ballot.probabilities[..compared], agreed);
        }
        let best = tree.paths.iter().position(|path| common(path, committed) >= accepted).unwrap_or(0);
        let depth = tree.paths.iter().map(Vec::len).max().unwrap_or(0);
        let probabilities = tree.ballots.get(best).map(|at| {
            let own = &ballots[*at].probabilities;
            own[..tree.paths[best].len().min(own.len())].to_vec()
        });
        let spread = (rows.max(1) - 1) as f64 / depth.max(1) as f64;
        let team = &mut self.drafters[index];
        team.spread = team.spread * DECAY + (1.0 - DECAY) * spread;
        self.verified_rows(index, &probabilities.unwrap_or_default(), accepted, rows, nanoseconds);
    }
}
