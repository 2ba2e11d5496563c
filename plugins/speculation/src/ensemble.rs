//! All drafters together, as one more drafter. The controller knows the cost of a race and the acceptance of its
//! trees. It weighs a race by the same rule as a single drafter.

use crate::acceptance::Acceptance;
use crate::cost::DraftCost;
use crate::drafter::Drafter;
use crate::tree::{Ballot, Tree, common_prefix};

/// Rows per token of depth, before the first tree.
const INITIAL_ROWS_PER_DEPTH: f64 = 1.5;
/// The weight that one observation leaves to the earlier ones.
const DECAY: f64 = 0.95;
/// How often a second path is right where the first is wrong, before the first tree.
const PRIOR_BRANCH_ACCEPTANCE: f64 = 0.3;
/// The weight of the prior, in observations.
const PRIOR_WEIGHT: f64 = 4.0;

/// Drafters that propose at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Ensemble {
    /// Its index, after all drafters.
    index: usize,
    hits: f64,
    trials: f64,
}

impl Ensemble {
    /// Creates the ensemble of the drafters that take time, and its estimates as one more drafter. `None`: fewer
    /// than two drafters take time. `shared` marks the drafters that share the target's processor.
    pub(crate) fn of(drafters: &[Drafter], shared: &[bool]) -> Option<(Self, Drafter)> {
        let members: Vec<usize> = (0..drafters.len()).filter(|index| drafters[*index].takes_time()).collect();
        if members.len() < 2 {
            return None;
        }
        // Drafters on the target's processor take turns; the others run in parallel.
        let race_time = |of: fn(&Drafter) -> f64| {
            let times = || members.iter().map(|index| (shared[*index], of(&drafters[*index])));
            let in_turn: f64 = times().filter(|(shared, _)| *shared).map(|(_, time)| time).sum();
            times().map(|(_, time)| time).fold(in_turn, f64::max)
        };
        let time_per_token =
            race_time(|drafter| drafter.draft_cost.estimate(9) - drafter.draft_cost.estimate(8));
        let fixed_time = race_time(|drafter| drafter.draft_cost.estimate(0));
        let together = Drafter {
            acceptance: Acceptance::default(),
            draft_cost: DraftCost::expecting(time_per_token, fixed_time),
            overlaps: false,
            startup: race_time(|drafter| drafter.startup),
            is_free: false,
            unavailable: false,
            rows_per_depth: INITIAL_ROWS_PER_DEPTH,
            refused_tokens: 0,
            overconfident_refusals: 0,
        };
        Some((Self { index: drafters.len(), hits: 0.0, trials: 0.0 }, together))
    }

    /// Its index among the drafters.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// How often a second path is right where the first is wrong.
    pub(crate) fn branch_acceptance(&self) -> f64 {
        (self.hits + PRIOR_BRANCH_ACCEPTANCE * PRIOR_WEIGHT) / (self.trials + PRIOR_WEIGHT)
    }

    /// Records the verification of a tree with `rows` rows in the estimates of the drafters and of the ensemble.
    /// Returns the probabilities of the tokens of the accepted path.
    pub(crate) fn record_tree(
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
        let rows_per_depth = (rows.max(1) - 1) as f64 / depth.max(1) as f64;
        let own = &mut drafters[self.index];
        own.rows_per_depth = own.rows_per_depth * DECAY + (1.0 - DECAY) * rows_per_depth;
        let best = tree.paths.iter().position(|path| common_prefix(path, committed) >= accepted).unwrap_or(0);
        let probabilities = tree.ballots.get(best).map(|at| {
            let own = &ballots[*at].probabilities;
            own[..tree.paths[best].len().min(own.len())].to_vec()
        });
        probabilities.unwrap_or_default()
    }

    /// Records whether another path was right where the first was wrong, if a path branched off there.
    fn compare(&mut self, paths: &[Vec<u32>], committed: &[u32]) {
        let Some((first, others)) = paths.split_first() else { return };
        let agreed = common_prefix(first, committed);
        let Some(right) = committed.get(agreed).filter(|_| agreed < first.len()) else { return };
        let branches = others.iter().filter(|path| common_prefix(path, first) == agreed);
        let alternatives: Vec<u32> = branches.filter_map(|path| path.get(agreed).copied()).collect();
        if !alternatives.is_empty() {
            self.hits = self.hits * DECAY + f64::from(u8::from(alternatives.contains(right)));
            self.trials = self.trials * DECAY + 1.0;
        }
    }
}

/// Nanoseconds after which a race of these drafters for `max_tokens` tokens ends.
pub(crate) fn race_timeout<'a>(members: impl Iterator<Item = &'a Drafter>, max_tokens: u32) -> u64 {
    let available = members.filter(|drafter| !drafter.unavailable);
    let times = available.map(|drafter| drafter.startup + drafter.draft_cost.estimate(max_tokens as usize));
    (3.0 * times.fold(0.0, f64::max)).max(5e7) as u64
}
