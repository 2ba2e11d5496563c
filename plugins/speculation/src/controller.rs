//! Decides the next step of a request. It is pure, so tests run it on recorded cost curves.
//!
//! Invariant: each draft stays within the budget of [`crate::budget`], the worst case of the next round included.

use crate::acceptance::Acceptance;
use crate::budget::{Budget, WARM_UP_DRAFTS};
use crate::cost::{DraftCost, PassCost};
use crate::drafter::Drafter;
use crate::ensemble::{self, Ensemble};
use crate::tree::{Ballot, Tree, TreeParams, grow};

/// A draft must promise this factor over plain decoding.
const MIN_GAIN: f64 = 1.03;
/// Drafted rounds after which a decode measures the cost of one row again.
const MAX_ROUNDS_SINCE_DECODE: u32 = 64;
/// The cost that a draft without promise may have, in single-token passes per token since the drafter's first
/// refusal: a drafter can become useful later.
const REPROBE_COST: f64 = 0.005;
/// The least cost of one more row, in single-token passes. A lower measurement is noise.
const MIN_ROW_COST: f64 = 0.04;
/// A wrong draft above this confidence counts as overconfident.
const OVERCONFIDENT_FROM: f32 = 0.7;
/// Overconfident refusals after which the controller no longer asks the drafter at every token.
const MAX_OVERCONFIDENT_REFUSALS: u32 = 16;
/// The share of plain decoding that the network may take: stretches of decoding from a distant target are long enough
/// for that.
const NETWORK_SHARE: f64 = 0.012;

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Plan {
    /// Ask a drafter.
    Draft {
        /// The drafter's index.
        drafter: usize,
        /// The number of tokens that are worth a request.
        max_tokens: u32,
        /// The confidence below which further tokens are not worth their cost.
        min_probability: f32,
    },
    /// Decode this many tokens without drafts.
    Decode(u32),
}

/// The facts about a drafter that are known before its first draft.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// True if it can draft while the target verifies.
    pub overlaps: bool,
    /// Nanoseconds before its first token.
    pub startup: u64,
    /// Nanoseconds per token.
    pub time_per_token: u64,
    /// The network round trip, in nanoseconds.
    pub round_trip: u64,
    /// True if the drafter cannot be asked in this request.
    pub unavailable: bool,
}

/// Estimates, and the decisions that follow from them. All times are in nanoseconds.
#[derive(Debug, Clone)]
pub struct Controller {
    pub(crate) drafters: Vec<Drafter>,
    pub(crate) pass_cost: PassCost,
    pub(crate) ensemble: Option<Ensemble>,
    pub(crate) max_draft_tokens: u32,
    pub(crate) budget: Budget,
    /// Tokens of the next stretch of plain decoding.
    decode_stretch: u32,
    rounds_since_decode: u32,
    /// Decodes since the last verification.
    decode_streak: u32,
}

impl Controller {
    /// Creates the controller of one request.
    #[must_use]
    pub fn new(pass_cost: PassCost, facts: &[Facts], max_draft_tokens: u32) -> Self {
        let drafter = |facts: &Facts| Drafter {
            acceptance: Acceptance::default(),
            draft_cost: DraftCost::expecting(facts.time_per_token as f64, facts.round_trip as f64),
            overlaps: facts.overlaps,
            startup: facts.startup as f64,
            is_free: facts.startup == 0 && facts.time_per_token == 0 && facts.round_trip == 0,
            unavailable: facts.unavailable,
            rows_per_depth: 1.0,
            refused_tokens: 0,
            overconfident_refusals: 0,
        };
        Self {
            drafters: facts.iter().map(drafter).collect(),
            pass_cost,
            ensemble: None,
            max_draft_tokens,
            budget: Budget::default(),
            decode_stretch: 8,
            rounds_since_decode: 0,
            decode_streak: 0,
        }
    }

    /// The loss that a later request starts with; negative: a gain.
    pub(crate) fn carried_budget(&self) -> f64 {
        self.budget.carried(self.pass_cost.token_cost().unwrap_or(0.0))
    }

    /// The drafters that can run for free beside a plain decode of `tokens` tokens: trivially cheap ones, and faster
    /// ones on another processor. Their drafts are compared with the decoded tokens.
    #[must_use]
    pub fn shadow_drafters(&self, tokens: u32) -> Vec<usize> {
        let is_distant = self.pass_cost.round_trip() > 0.0;
        let time = 0.8 * f64::from(tokens) * self.pass_cost.token_cost().unwrap_or(0.0);
        let length = tokens.min(16) as usize;
        let is_fast = |drafter: &Drafter| drafter.startup + drafter.draft_cost.estimate(length) < time;
        // A known drafter needs no comparison in every round.
        let due =
            |drafter: &Drafter| drafter.acceptance.evidence() < WARM_UP_DRAFTS || self.decode_streak % 8 == 7;
        let hidden = |drafter: &Drafter| drafter.overlaps && due(drafter) && is_fast(drafter);
        let fits = |own: &Drafter| !own.unavailable && (hidden(own) || (own.is_free && is_distant));
        let all = self.drafters.iter().enumerate().filter(|(_, drafter)| tokens > 2 && fits(drafter));
        all.map(|(index, _)| index).collect()
    }

    /// Records the draft of a shadow drafter. `agreed` of its tokens agree with the decoded tokens.
    pub fn record_shadow(&mut self, drafter: usize, probabilities: &[f32], agreed: usize, time: u64) {
        self.record_draft(drafter, probabilities.len(), time, true);
        self.drafters[drafter].acceptance.observe(probabilities, agreed.min(probabilities.len()));
    }

    /// Plans the next step. The drafters marked in `asked` had nothing worth verifying in this round.
    #[must_use]
    pub fn plan(&self, asked: &[bool], remaining: u32) -> Plan {
        let Some(token_cost) = self.pass_cost.token_cost() else { return Plan::Decode(4.min(remaining)) };
        let max_tokens = self.max_draft_tokens.min(remaining.saturating_sub(1));
        if max_tokens == 0 {
            return Plan::Decode(1);
        }
        if self.rounds_since_decode > MAX_ROUNDS_SINCE_DECODE {
            return self.plan_decode(remaining.min(8));
        }
        let open = |index: &usize| {
            !self.drafters[*index].unavailable && !asked.get(*index).copied().unwrap_or(false)
        };
        let drafters = || (0..self.drafters.len()).filter(open);
        if let Some(drafter) = drafters().find(|index| self.drafters[*index].is_free) {
            return Plan::Draft { drafter, max_tokens, min_probability: 0.0 };
        }
        let rated = drafters()
            .filter_map(|index| self.best_length(index, max_tokens, token_cost).map(|best| (index, best)));
        match rated.max_by(|a, b| a.1.1.total_cmp(&b.1.1)) {
            Some((drafter, (max_tokens, rate))) => {
                let min_probability = self.min_probability(drafter, max_tokens, rate);
                Plan::Draft { drafter, max_tokens, min_probability }
            }
            None => self.plan_decode(remaining),
        }
    }

    /// The number of proposals that are worth verifying, from the first on.
    #[must_use]
    pub fn draft_length(&self, drafter: usize, probabilities: &[f32], remaining: u32) -> usize {
        let Some(token_cost) = self.pass_cost.token_cost() else { return 0 };
        let acceptance = &self.drafters[drafter].acceptance;
        let (mut reach, mut expected) = (1.0, 1.0);
        let (mut best, mut best_rate) = (0, MIN_GAIN / token_cost);
        let max_tokens = (self.max_draft_tokens as usize).min(remaining.saturating_sub(1) as usize);
        for (index, probability) in probabilities.iter().enumerate().take(max_tokens) {
            reach *= acceptance.at_confidence(*probability);
            expected += reach;
            let cost = self.pass_cost.estimate(index + 2);
            if !self.affordable(cost - token_cost, token_cost, acceptance) {
                break;
            }
            if expected / cost > best_rate {
                (best, best_rate) = (index + 1, expected / cost);
            }
        }
        if best > 0 {
            return best;
        }
        let row_cost = (self.pass_cost.estimate(2) - token_cost).max(MIN_ROW_COST * token_cost);
        let refused_tokens = f64::from(self.drafters[drafter].refused_tokens);
        let due = row_cost < REPROBE_COST * token_cost * refused_tokens
            && self.affordable(row_cost, token_cost, acceptance);
        usize::from(due).min(max_tokens).min(probabilities.len())
    }

    /// Records a draft without a proposal worth verifying. `probability` is the drafter's confidence in the first
    /// one. Low confidence is not a fault: the drafter may know more the next time.
    pub fn record_refusal(&mut self, drafter: usize, probability: f32) {
        let own = &mut self.drafters[drafter];
        own.refused_tokens += 1;
        if probability >= OVERCONFIDENT_FROM
            && own.acceptance.at_confidence(probability) < 0.5 * f64::from(probability)
        {
            own.overconfident_refusals += 1;
        }
    }

    /// Records the time of a draft. `hidden`: it ran while the target worked.
    pub fn record_draft(&mut self, drafter: usize, tokens: usize, time: u64, hidden: bool) {
        let (time, own) = (time as f64, &mut self.drafters[drafter]);
        let startup = std::mem::take(&mut own.startup).min(time);
        own.draft_cost.observe(tokens, time - startup);
        if !hidden {
            self.budget.record_loss(time);
        }
    }

    /// Records a failure: the controller does not ask the drafter again.
    pub fn record_failure(&mut self, drafter: usize) {
        self.drafters[drafter].unavailable = true;
    }

    /// Records a wait for a draft after the target's reply.
    pub fn record_wait(&mut self, time: u64) {
        self.budget.record_loss(time as f64);
    }

    /// Records the verification of tokens with these probabilities.
    pub fn record_verification(&mut self, drafter: usize, probabilities: &[f32], accepted: usize, time: u64) {
        self.record_pass(drafter, probabilities, accepted, probabilities.len() + 1, time);
    }

    /// Records a verification in a pass over `rows` rows.
    fn record_pass(
        &mut self,
        drafter: usize,
        probabilities: &[f32],
        accepted: usize,
        rows: usize,
        time: u64,
    ) {
        let time = time as f64;
        let accepted = accepted.min(probabilities.len());
        self.pass_cost.observe(rows, time);
        self.drafters[drafter].acceptance.observe(probabilities, accepted);
        (self.drafters[drafter].refused_tokens, self.drafters[drafter].overconfident_refusals) = (0, 0);
        if let Some(token_cost) = self.pass_cost.token_cost() {
            let lost = time - (accepted + 1) as f64 * token_cost;
            // A gain of a pass that accepted nothing is noise.
            let lost = if accepted > 0 { lost } else { lost.max(0.0) };
            self.budget.record_verification(lost, token_cost);
        }
        self.budget.record_time(time);
        self.rounds_since_decode += 1;
        self.decode_stretch = if accepted > 0 { 8 } else { (self.decode_stretch * 2).min(64) };
        self.decode_streak = 0;
    }

    /// Records plain decoding of `tokens` tokens.
    pub fn record_decode(&mut self, tokens: usize, time: u64) {
        if tokens > 0 {
            self.pass_cost.record_decode(tokens, time as f64);
            self.budget.record_time(time as f64);
            self.rounds_since_decode = 0;
            self.decode_streak += 1;
            for drafter in self.drafters.iter_mut().filter(|drafter| drafter.refused_tokens > 0) {
                drafter.refused_tokens += tokens as u32 - 1;
            }
        }
    }

    /// Lets the drafters that take time propose at the same time, if there are several. `shared` marks the drafters
    /// that share the target's processor: they compute one after the other.
    #[must_use]
    pub fn with_ensemble(mut self, shared: &[bool]) -> Self {
        if let Some((ensemble, together)) = Ensemble::of(&self.drafters, shared) {
            self.ensemble = Some(ensemble);
            self.drafters.push(together);
        }
        self
    }

    /// The index of the ensemble. `None`: there is none.
    #[must_use]
    pub fn ensemble(&self) -> Option<usize> {
        self.ensemble.as_ref().map(Ensemble::index)
    }

    /// The time after which a race for `max_tokens` tokens ends.
    #[must_use]
    pub fn race_timeout(&self, members: &[usize], max_tokens: u32) -> u64 {
        ensemble::race_timeout(members.iter().map(|index| &self.drafters[*index]), max_tokens)
    }

    /// Adds to a draft the chances that its tokens are accepted.
    #[must_use]
    pub fn ballot(&self, drafter: usize, tokens: Vec<u32>, probabilities: Vec<f32>) -> Ballot {
        let acceptance = &self.drafters[drafter].acceptance;
        let chances = probabilities.iter().map(|own| acceptance.at_confidence(*own)).collect();
        Ballot { drafter, tokens, probabilities, chances }
    }

    /// The part of the ballots that is worth verifying.
    #[must_use]
    pub fn tree(&self, ballots: &[Ballot], remaining: u32) -> Tree {
        let (Some(token_cost), Some(ensemble)) = (self.pass_cost.token_cost(), &self.ensemble) else {
            return Tree::default();
        };
        let acceptance = &self.drafters[ensemble.index()].acceptance;
        let cost = |rows: usize| {
            let cost = self.pass_cost.estimate(rows);
            self.affordable(cost - token_cost, token_cost, acceptance).then_some(cost)
        };
        let max_path_tokens = (self.max_draft_tokens as usize).min(remaining.saturating_sub(1) as usize);
        let branch_acceptance = ensemble.branch_acceptance();
        let min_rate = MIN_GAIN / token_cost;
        grow(ballots, &TreeParams { max_path_tokens, min_rate, branch_acceptance, cost })
    }

    /// Records that all of `members` have processed the prompt.
    pub fn record_race(&mut self, members: &[usize]) {
        members.iter().for_each(|index| self.drafters[*index].startup = 0.0);
    }

    /// Records the verification of a tree. The target accepted `accepted` tokens of one path. Every ballot is
    /// compared with the `committed` tokens. `rows` and `time` are those of the pass.
    pub fn record_tree(
        &mut self,
        ballots: &[Ballot],
        tree: &Tree,
        committed: &[u32],
        accepted: usize,
        (rows, time): (usize, u64),
    ) {
        let Some(ensemble) = self.ensemble.as_mut() else { return };
        let index = ensemble.index();
        let probabilities =
            ensemble.record_tree(&mut self.drafters, ballots, tree, committed, accepted, rows);
        self.record_pass(index, &probabilities, accepted, rows, time);
    }

    /// The draft length with the best rate, if it beats plain decoding and the budget covers its failure. Otherwise a
    /// single token, if a probe is due.
    fn best_length(&self, index: usize, max_tokens: u32, token_cost: f64) -> Option<(u32, f64)> {
        let drafter = &self.drafters[index];
        let (mut reach, mut expected) = (1.0, 1.0);
        let mut best = None;
        let mut bar = MIN_GAIN / token_cost;
        for length in 1..=max_tokens {
            reach *= drafter.acceptance.at_position(length as usize - 1);
            expected += reach;
            let cost = self.round_cost(drafter, length as usize, reach);
            if !self.affordable(cost - token_cost, token_cost, &drafter.acceptance) {
                break;
            }
            // Later rounds pay the startup back.
            if expected / (cost - 0.75 * drafter.startup) > bar {
                bar = expected / (cost - 0.75 * drafter.startup);
                best = Some((length, bar));
            }
        }
        best.or_else(|| self.probe(drafter, token_cost))
    }

    fn probe(&self, drafter: &Drafter, token_cost: f64) -> Option<(u32, f64)> {
        let cost = self.round_cost(drafter, 1, 0.0);
        let due = self.budget.allows_probe(cost - token_cost);
        (due && cost < 3.0 * token_cost).then_some((1, 1.0 / cost))
    }

    /// The cost of a round with `length` proposals. `reach` is the chance that the target accepts all of them.
    fn round_cost(&self, drafter: &Drafter, length: usize, reach: f64) -> f64 {
        let drafting = drafter.startup + drafter.draft_cost.estimate(length);
        let verifying = self.pass_cost.estimate((drafter.rows_per_depth * length as f64).ceil() as usize + 1);
        // Tokens drafted ahead are useful only if the target accepts everything before them.
        let hidden = if drafter.overlaps { reach * drafter.acceptance.at_position(length) } else { 0.0 };
        hidden * verifying.max(drafting) + (1.0 - hidden) * (verifying + drafting)
    }

    fn affordable(&self, risk: f64, token_cost: f64, acceptance: &Acceptance) -> bool {
        self.budget.allows(risk, token_cost, self.pass_cost.round_trip(), acceptance.evidence())
    }

    /// The confidence below which one more token costs more time than it saves.
    fn min_probability(&self, index: usize, max_tokens: u32, rate: f64) -> f32 {
        let drafter = &self.drafters[index];
        let length = max_tokens as usize;
        let marginal = self.round_cost(drafter, length + 1, 0.0) - self.round_cost(drafter, length, 0.0);
        (0.5 * rate * marginal).clamp(0.0, 0.5) as f32
    }

    /// Plans plain decoding. The stretches are short while a free drafter is worth asking after each token.
    /// Otherwise they grow.
    fn plan_decode(&self, remaining: u32) -> Plan {
        let worth_asking = |drafter: &Drafter| {
            drafter.is_free
                && !drafter.unavailable
                && drafter.overconfident_refusals < MAX_OVERCONFIDENT_REFUSALS
        };
        let short = self.drafters.iter().any(worth_asking);
        let tokens = if short { (1 + self.decode_streak / 16).min(3) } else { self.decode_stretch };
        let token_cost = self.pass_cost.token_cost().unwrap_or(1.0).max(1.0);
        let network_tokens = self.pass_cost.round_trip() / (NETWORK_SHARE * token_cost)
            * (1.0 + 0.5 * f64::from(self.decode_streak));
        let network_tokens = network_tokens.ceil().min(4096.0) as u32;
        Plan::Decode(tokens.max(network_tokens).min(remaining.max(1)))
    }
}
