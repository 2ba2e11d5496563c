//! All drafters at once, as one more drafter: the controller knows what a race takes and how far the trees
//! that come of it are accepted, and weighs them by the same rule as a single drafter.

use crate::acceptance::Acceptance;
use crate::cost::Drafting;
use crate::drafter::Drafter;
use crate::tree::{Ballot, Tree, common};

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
    /// The team of the drafters that cost something, and its estimates as one more drafter behind all others.
    /// `None`: fewer than two drafters cost something. `shared`: those that compute where the target does.
    pub(crate) fn of(drafters: &[Drafter], shared: &[bool]) -> Option<(Self, Drafter)> {
        let members: Vec<usize> = (0..drafters.len()).filter(|index| drafters[*index].costs()).collect();
        if members.len() < 2 {
            return None;
        }
        let time = |of: fn(&Drafter) -> f64| {
            let times = || members.iter().map(|index| (shared[*index], of(&drafters[*index])));
            let together: f64 = times().filter(|(shared, _)| *shared).map(|(_, time)| time).sum();
            times().map(|(_, time)| time).fold(together, f64::max)
        };
        let token = time(|drafter| drafter.drafting.cost(9) - drafter.drafting.cost(8));
        let call = time(|drafter| drafter.drafting.cost(0));
        let together = Drafter {
            acceptance: Acceptance::default(),
            drafting: Drafting::expecting(token, call),
            overlaps: false,
            startup: time(|drafter| drafter.startup),
            free: false,
            gone: false,
            spread: SPREAD,
            refused: 0,
            doubted: 0,
        };
        Some((Self { index: drafters.len(), hits: 0.0, trials: 0.0 }, together))
    }

    /// Its place among the drafters.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// How often a second path is right where the first is wrong.
    pub(crate) fn second(&self) -> f64 {
        (self.hits + PRIOR.0 * PRIOR.1) / (self.trials + PRIOR.1)
    }

    /// Notes the verification of a tree with `rows` rows in the estimates of the drafters and of the team; the
    /// probabilities of the tokens of the accepted path.
    pub(crate) fn grown(
        &mut self,
        drafters: &mut [Drafter],
        ballots: &[Ballot],
        tree: &Tree,
        committed: &[u32],
        accepted: usize,
        rows: usize,
    ) -> Vec<f32> {
        self.compare(&tree.paths, committed);
        for ballot in ballots {
            let compared = ballot.tokens.len().min(committed.len());
            let agreed = ballot.agreed(&committed[..compared]);
            drafters[ballot.drafter].acceptance.observe(&ballot.probabilities[..compared], agreed);
        }
        let depth = tree.paths.iter().map(Vec::len).max().unwrap_or(0);
        let spread = (rows.max(1) - 1) as f64 / depth.max(1) as f64;
        let own = &mut drafters[self.index];
        own.spread = own.spread * DECAY + (1.0 - DECAY) * spread;
        let best = tree.paths.iter().position(|path| common(path, committed) >= accepted).unwrap_or(0);
        let probabilities = tree.ballots.get(best).map(|at| {
            let own = &ballots[*at].probabilities;
            own[..tree.paths[best].len().min(own.len())].to_vec()
        });
        probabilities.unwrap_or_default()
    }

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

/// Nanoseconds after which a race of these drafters for `max` tokens is given up.
pub(crate) fn race_limit<'a>(members: impl Iterator<Item = &'a Drafter>, max: u32) -> u64 {
    let there = members.filter(|drafter| !drafter.gone);
    let slowest = there.map(|drafter| drafter.startup + drafter.drafting.cost(max as usize));
    (3.0 * slowest.fold(0.0, f64::max)).max(5e7) as u64
}
