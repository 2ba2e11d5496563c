//! Decides what the next round does: pure, so that it is tested on recorded cost curves.
//!
//! Invariant: each draft stays within the budget of [`crate::budget`], worst case of the next round included.

use crate::acceptance::Acceptance;
use crate::budget::{Budget, ENOUGH_EVIDENCE};
use crate::cost::{Drafting, Verification};
use crate::drafter::Drafter;
use crate::team::{self, Team};
use crate::tree::{Ballot, Terms, Tree, grow};

/// A draft must promise this much more than plain decoding.
const MARGIN: f64 = 1.03;
/// Drafted rounds after which the cost of one row is measured again.
const STALE: u32 = 64;
/// What a proposal may cost that promises nothing, for each token since its drafter was first refused, in
/// single-token passes: things change.
const AGAIN: f64 = 0.005;
/// What one more row takes at least, in single-token passes, where it was measured to take less: noise.
const ROW: f64 = 0.04;
/// The confidence from which on a drafter that is wrong is wrong about itself.
const SURE: f32 = 0.7;
/// Refusals after which one that is wrong about itself is not asked at every token.
const DOUBTED: u32 = 16;
/// The share of plain decoding that may go into the way to a target far away and back: stretches of it
/// are long enough for that.
const TRAVEL: f64 = 0.012;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Plan {
    /// Ask this drafter for up to `max` tokens.
    Draft {
        /// Its place in the list.
        drafter: usize,
        /// Most tokens worth asking for.
        max: u32,
        /// Confidence below which more tokens are not worth it.
        min_probability: f32,
    },
    /// Decode this many tokens plainly.
    Decode(u32),
}

/// What is known about a drafter before it was ever asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// It can draft while the target verifies.
    pub overlaps: bool,
    /// Nanoseconds until its first token.
    pub startup: u64,
    /// Nanoseconds a token.
    pub token: u64,
    /// Nanoseconds of the way there and back.
    pub round_trip: u64,
    /// It is not there: it is never asked.
    pub absent: bool,
}

/// Estimates and the decisions made from them.
#[derive(Debug, Clone)]
pub struct Controller {
    pub(crate) drafters: Vec<Drafter>,
    pub(crate) verification: Verification,
    pub(crate) team: Option<Team>,
    pub(crate) max_draft: u32,
    pub(crate) budget: Budget,
    plain: u32,
    since_one: u32,
    /// Plain steps since a draft was last worth verifying.
    idle: u32,
}

impl Controller {
    /// A controller for a target and drafters with these facts.
    #[must_use]
    pub fn new(verification: Verification, facts: &[Facts], max_draft: u32) -> Self {
        let drafter = |facts: &Facts| Drafter {
            acceptance: Acceptance::default(),
            drafting: Drafting::expecting(facts.token as f64, facts.round_trip as f64),
            overlaps: facts.overlaps,
            startup: facts.startup as f64,
            free: facts.startup == 0 && facts.token == 0 && facts.round_trip == 0,
            gone: facts.absent,
            spread: 1.0,
            refused: 0,
            doubted: 0,
        };
        Self {
            drafters: facts.iter().map(drafter).collect(),
            verification,
            team: None,
            max_draft,
            budget: Budget::default(),
            plain: 8,
            since_one: 0,
            idle: 0,
        }
    }

    /// What a later request inherits of the gains, in nanoseconds.
    pub(crate) fn inheritance(&self) -> f64 {
        self.budget.inheritance(self.verification.one().unwrap_or(0.0))
    }

    /// The drafters whose proposals can be compared with what a plain decode of `tokens` tokens brings, at
    /// no cost: they take next to nothing, or a processor of their own and less time than the decode.
    #[must_use]
    pub fn shadows(&self, tokens: u32) -> Vec<usize> {
        let away = self.verification.away() > 0.0;
        let time = 0.8 * f64::from(tokens) * self.verification.one().unwrap_or(0.0);
        let done =
            |drafter: &Drafter| drafter.startup + drafter.drafting.cost(tokens.min(16) as usize) < time;
        // One that is known need not be tried at every turn.
        let due = |drafter: &Drafter| drafter.acceptance.evidence() < ENOUGH_EVIDENCE || self.idle % 8 == 7;
        let own = |drafter: &Drafter| drafter.overlaps && due(drafter) && done(drafter);
        let costless = |drafter: &Drafter| !drafter.gone && (own(drafter) || (drafter.free && away));
        let all = self.drafters.iter().enumerate().filter(|(_, drafter)| tokens > 2 && costless(drafter));
        all.map(|(index, _)| index).collect()
    }

    /// Notes how far a proposal agreed with what was decoded meanwhile.
    pub fn shadowed(&mut self, drafter: usize, probabilities: &[f32], agreed: usize, nanoseconds: u64) {
        self.drafted(drafter, probabilities.len(), nanoseconds, true);
        self.drafters[drafter].acceptance.observe(probabilities, agreed.min(probabilities.len()));
    }

    /// The next step. `asked` drafters were asked in this round already and brought nothing.
    #[must_use]
    pub fn plan(&self, asked: &[bool], remaining: u32) -> Plan {
        let Some(one) = self.verification.one() else { return Plan::Decode(4.min(remaining)) };
        let longest = self.max_draft.min(remaining.saturating_sub(1));
        if longest == 0 {
            return Plan::Decode(1);
        }
        if self.since_one > STALE {
            return self.decode(remaining.min(8));
        }
        let open =
            |index: &usize| !self.drafters[*index].gone && !asked.get(*index).copied().unwrap_or(false);
        let drafters = || (0..self.drafters.len()).filter(open);
        if let Some(drafter) = drafters().find(|index| self.drafters[*index].free) {
            return Plan::Draft { drafter, max: longest, min_probability: 0.0 };
        }
        let rated = drafters().filter_map(|index| self.best(index, longest, one).map(|best| (index, best)));
        match rated.max_by(|a, b| a.1.1.total_cmp(&b.1.1)) {
            Some((drafter, (max, rate))) => {
                Plan::Draft { drafter, max, min_probability: self.threshold(drafter, max, rate, one) }
            }
            None => self.decode(remaining),
        }
    }

    /// How many of the proposals are worth verifying.
    #[must_use]
    pub fn cut(&self, drafter: usize, probabilities: &[f32], remaining: u32) -> usize {
        let Some(one) = self.verification.one() else { return 0 };
        let acceptance = &self.drafters[drafter].acceptance;
        let (mut reach, mut expected) = (1.0, 1.0);
        let (mut best, mut best_rate) = (0, MARGIN / one);
        let longest = (self.max_draft as usize).min(remaining.saturating_sub(1) as usize);
        for (index, probability) in probabilities.iter().enumerate().take(longest) {
            reach *= acceptance.given(*probability);
            expected += reach;
            let cost = self.verification.cost(index + 2);
            if !self.affordable(cost - one, one, acceptance) {
                break;
            }
            if expected / cost > best_rate {
                (best, best_rate) = (index + 1, expected / cost);
            }
        }
        if best > 0 {
            return best;
        }
        let more = (self.verification.cost(2) - one).max(ROW * one);
        let refused = f64::from(self.drafters[drafter].refused);
        let due = more < AGAIN * one * refused && self.affordable(more, one, acceptance);
        usize::from(due).min(longest).min(probabilities.len())
    }

    /// Notes that none of a drafter's proposals were worth verifying, though it gives the first of them this
    /// chance. One that was not sure itself may have more to say the next time.
    pub fn refused(&mut self, drafter: usize, probability: f32) {
        let own = &mut self.drafters[drafter];
        own.refused += 1;
        if probability >= SURE && own.acceptance.given(probability) < 0.5 * f64::from(probability) {
            own.doubted += 1;
        }
    }

    /// Notes what a proposal cost. `hidden`: it ran while the target verified.
    pub fn drafted(&mut self, drafter: usize, tokens: usize, nanoseconds: u64, hidden: bool) {
        let (time, own) = (nanoseconds as f64, &mut self.drafters[drafter]);
        let startup = std::mem::take(&mut own.startup).min(time);
        own.drafting.observe(tokens, time - startup);
        if !hidden {
            self.budget.lose(time);
        }
    }

    /// Notes that a drafter broke: it is not asked again.
    pub fn lost(&mut self, drafter: usize) {
        self.drafters[drafter].gone = true;
    }

    /// Notes time that was spent on nothing but a draft made ahead.
    pub fn waited(&mut self, nanoseconds: u64) {
        self.budget.lose(nanoseconds as f64);
    }

    /// Notes a verification of tokens with these probabilities.
    pub fn verified(&mut self, drafter: usize, probabilities: &[f32], accepted: usize, nanoseconds: u64) {
        self.verified_rows(drafter, probabilities, accepted, probabilities.len() + 1, nanoseconds);
    }

    /// The same of a pass that took `rows` rows.
    fn verified_rows(
        &mut self,
        drafter: usize,
        probabilities: &[f32],
        accepted: usize,
        rows: usize,
        nanoseconds: u64,
    ) {
        let time = nanoseconds as f64;
        let accepted = accepted.min(probabilities.len());
        self.verification.observe(rows, time);
        self.drafters[drafter].acceptance.observe(probabilities, accepted);
        (self.drafters[drafter].refused, self.drafters[drafter].doubted) = (0, 0);
        if let Some(one) = self.verification.one() {
            let lost = time - (accepted + 1) as f64 * one;
            // What a pass of which nothing was accepted seems to gain is noise.
            let lost = if accepted > 0 { lost } else { lost.max(0.0) };
            self.budget.settle(lost, one);
        }
        self.budget.spend(time);
        self.since_one += 1;
        self.plain = if accepted > 0 { 8 } else { (self.plain * 2).min(64) };
        self.idle = 0;
    }

    /// Notes plain decoding of `tokens` tokens.
    pub fn decoded(&mut self, tokens: usize, nanoseconds: u64) {
        if tokens > 0 {
            self.verification.decoded(tokens, nanoseconds as f64);
            self.budget.spend(nanoseconds as f64);
            self.since_one = 0;
            self.idle += 1;
            for drafter in self.drafters.iter_mut().filter(|drafter| drafter.refused > 0) {
                drafter.refused += tokens as u32 - 1;
            }
        }
    }

    /// Lets drafters that cost something also propose at once, where there are several. `shared`: those that
    /// compute where the target does, one after the other.
    #[must_use]
    pub fn with_team(mut self, shared: &[bool]) -> Self {
        if let Some((team, together)) = Team::of(&self.drafters, shared) {
            self.team = Some(team);
            self.drafters.push(together);
        }
        self
    }

    /// The place of all drafters together, where they may propose at once.
    #[must_use]
    pub fn team(&self) -> Option<usize> {
        self.team.as_ref().map(Team::index)
    }

    /// Nanoseconds after which a race for `max` tokens is given up.
    #[must_use]
    pub fn race_limit(&self, members: &[usize], max: u32) -> u64 {
        team::race_limit(members.iter().map(|index| &self.drafters[*index]), max)
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
        let known = &self.drafters[team.index()].acceptance;
        let cost = |rows: usize| {
            let cost = self.verification.cost(rows);
            self.affordable(cost - one, one, known).then_some(cost)
        };
        let longest = (self.max_draft as usize).min(remaining.saturating_sub(1) as usize);
        grow(ballots, &Terms { longest, bar: MARGIN / one, second: team.second(), cost })
    }

    /// Notes that all of `members` have read the prompt.
    pub fn raced(&mut self, members: &[usize]) {
        members.iter().for_each(|index| self.drafters[*index].startup = 0.0);
    }

    /// Notes the verification of a tree, of which `accepted` tokens of one path were accepted; every ballot is
    /// compared with what was `committed`. `rows` and `nanoseconds` are those of the pass.
    pub fn grown(
        &mut self,
        ballots: &[Ballot],
        tree: &Tree,
        committed: &[u32],
        accepted: usize,
        (rows, nanoseconds): (usize, u64),
    ) {
        let Some(team) = self.team.as_mut() else { return };
        let index = team.index();
        let probabilities = team.grown(&mut self.drafters, ballots, tree, committed, accepted, rows);
        self.verified_rows(index, &probabilities, accepted, rows, nanoseconds);
    }

    /// The draft length with the best rate, where it beats plain decoding and its failure can be
    /// afforded; else a single token, now and then: things change.
    fn best(&self, index: usize, longest: u32, one: f64) -> Option<(u32, f64)> {
        let drafter = &self.drafters[index];
        let (mut reach, mut expected) = (1.0, 1.0);
        let mut best = None;
        let mut bar = MARGIN / one;
        for length in 1..=longest {
            reach *= drafter.acceptance.at(length as usize - 1);
            expected += reach;
            let cost = self.round(drafter, length as usize, reach);
            if !self.affordable(cost - one, one, &drafter.acceptance) {
                break;
            }
            // What it takes to begin is paid back over the rounds to come.
            if expected / (cost - 0.75 * drafter.startup) > bar {
                bar = expected / (cost - 0.75 * drafter.startup);
                best = Some((length, bar));
            }
        }
        best.or_else(|| self.probe(drafter, one))
    }

    fn probe(&self, drafter: &Drafter, one: f64) -> Option<(u32, f64)> {
        let cost = self.round(drafter, 1, 0.0);
        let due = self.budget.allows_probe(cost - one);
        (due && cost < 3.0 * one).then_some((1, 1.0 / cost))
    }

    /// What a round of `length` proposals takes, all of which are accepted with the chance `reach`.
    fn round(&self, drafter: &Drafter, length: usize, reach: f64) -> f64 {
        let drafting = drafter.startup + drafter.drafting.cost(length);
        let verifying = self.verification.cost((drafter.spread * length as f64).ceil() as usize + 1);
        // What was drafted ahead is of use only when all before it was accepted.
        let hidden = if drafter.overlaps { reach * drafter.acceptance.at(length) } else { 0.0 };
        hidden * verifying.max(drafting) + (1.0 - hidden) * (verifying + drafting)
    }

    fn affordable(&self, risk: f64, one: f64, known: &Acceptance) -> bool {
        self.budget.allows(risk, one, self.verification.away(), known.evidence())
    }

    /// The confidence at which one more token costs more time than it saves.
    fn threshold(&self, index: usize, max: u32, rate: f64, _one: f64) -> f32 {
        let drafter = &self.drafters[index];
        let length = max as usize;
        let marginal = self.round(drafter, length + 1, 0.0) - self.round(drafter, length, 0.0);
        (0.5 * rate * marginal).clamp(0.0, 0.5) as f32
    }

    /// Plain decoding: step by step while a free drafter may have something to say after each
    /// token that is worth hearing, else in growing stretches.
    fn decode(&self, remaining: u32) -> Plan {
        let heard = |drafter: &Drafter| drafter.free && !drafter.gone && drafter.doubted < DOUBTED;
        let free = self.drafters.iter().any(heard);
        let tokens = if free { (1 + self.idle / 16).min(3) } else { self.plain };
        let one = self.verification.one().unwrap_or(1.0).max(1.0);
        let far = self.verification.away() / (TRAVEL * one) * (1.0 + 0.5 * f64::from(self.idle));
        let far = far.ceil().min(4096.0) as u32;
        Plan::Decode(tokens.max(far).min(remaining.max(1)))
    }
}
