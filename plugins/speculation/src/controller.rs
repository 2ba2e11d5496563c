//! Decides what the next round does: pure, so that it is tested on recorded cost curves.
//!
//! Invariant: what drafting has lost against plain decoding, worst case of the next round
//! included, stays below [`START`] single-token passes plus [`SHARE`] of all time spent.

use crate::acceptance::Acceptance;
use crate::cost::{Drafting, Verification};

/// The share of all time that may be lost on drafts.
const SHARE: f64 = 0.012;
/// What may be lost at the start, in single-token passes.
const START: f64 = 2.0;
/// The most gain that is remembered to be risked again, in single-token passes.
const CREDIT: f64 = 24.0;
/// A draft must promise this much more than plain decoding.
const MARGIN: f64 = 1.02;
/// Drafted rounds after which the cost of one row is measured again.
const STALE: u32 = 48;

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

#[derive(Debug, Clone, Default)]
struct Drafter {
    acceptance: Acceptance,
    drafting: Drafting,
    overlaps: bool,
}

/// Estimates and the decisions made from them.
#[derive(Debug, Clone)]
pub struct Controller {
    drafters: Vec<Drafter>,
    verification: Verification,
    max_draft: u32,
    lost: f64,
    spent: f64,
    plain: u32,
    since_one: u32,
}

impl Controller {
    /// `overlaps` says for each drafter whether it can draft while the target verifies.
    #[must_use]
    pub fn new(overlaps: &[bool], max_draft: u32) -> Self {
        let drafters = overlaps.iter().map(|&overlaps| Drafter { overlaps, ..Drafter::default() }).collect();
        Self {
            drafters,
            verification: Verification::default(),
            max_draft,
            lost: 0.0,
            spent: 0.0,
            plain: 8,
            since_one: 0,
        }
    }

    /// The next step. `asked` drafters were asked in this round already and brought nothing.
    #[must_use]
    pub fn plan(&self, asked: &[bool], remaining: u32) -> Plan {
        let Some(one) = self.verification.one() else { return Plan::Decode(4.min(remaining)) };
        if self.since_one > STALE {
            return Plan::Decode(1);
        }
        let open = |index: &usize| !asked.get(*index).copied().unwrap_or(false);
        let longest = self.max_draft.min(remaining.saturating_sub(1));
        if longest == 0 {
            return self.decode(asked, remaining, one);
        }
        if let Some(drafter) = (0..self.drafters.len()).filter(open).find(|&index| self.free(index, one)) {
            return Plan::Draft { drafter, max: longest, min_probability: 0.0 };
        }
        let best = (0..self.drafters.len())
            .filter(open)
            .filter_map(|index| self.best(index, longest, one).map(|(max, rate)| (index, max, rate)))
            .max_by(|a, b| a.2.total_cmp(&b.2));
        match best {
            Some((drafter, max, rate)) => {
                Plan::Draft { drafter, max, min_probability: self.threshold(drafter, max, rate, one) }
            }
            None => self.decode(asked, remaining, one),
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
            if !self.affordable(cost - one, one) {
                break;
            }
            if expected / cost > best_rate {
                (best, best_rate) = (index + 1, expected / cost);
            }
        }
        best
    }

    /// Notes what a proposal cost. `hidden`: it ran while the target verified.
    pub fn drafted(&mut self, drafter: usize, tokens: usize, nanoseconds: u64, hidden: bool) {
        self.drafters[drafter].drafting.observe(tokens, nanoseconds as f64);
        if !hidden {
            self.lost += nanoseconds as f64;
            self.spent += nanoseconds as f64;
        }
    }

    /// Notes a verification of tokens with these probabilities.
    pub fn verified(&mut self, drafter: usize, probabilities: &[f32], accepted: usize, nanoseconds: u64) {
        let time = nanoseconds as f64;
        let accepted = accepted.min(probabilities.len());
        self.verification.observe(probabilities.len() + 1, time);
        self.drafters[drafter].acceptance.observe(probabilities, accepted);
        if let Some(one) = self.verification.one() {
            self.lost = (self.lost + time - (accepted + 1) as f64 * one).max(-CREDIT * one);
        }
        self.spent += time;
        self.since_one += 1;
        self.plain = if accepted > 0 { 8 } else { (self.plain * 2).min(64) };
    }

    /// Notes plain decoding of `tokens` tokens.
    pub fn decoded(&mut self, tokens: usize, nanoseconds: u64) {
        if tokens > 0 {
            self.verification.observe(1, nanoseconds as f64 / tokens as f64);
            self.spent += nanoseconds as f64;
            self.since_one = 0;
        }
    }

    /// True when asking this drafter takes next to nothing.
    fn free(&self, index: usize, one: f64) -> bool {
        self.drafters[index].drafting.free(one)
    }

    /// The draft length with the best rate, where it beats plain decoding and its failure can be
    /// afforded.
    fn best(&self, index: usize, longest: u32, one: f64) -> Option<(u32, f64)> {
        let drafter = &self.drafters[index];
        let (mut reach, mut expected) = (1.0, 1.0);
        let mut best: Option<(u32, f64)> = None;
        let mut bar = MARGIN / one;
        for length in 1..=longest {
            reach *= drafter.acceptance.at(length as usize - 1);
            expected += reach;
            let cost = self.round(drafter, length as usize, one);
            if !self.affordable(cost - one, one) {
                break;
            }
            if expected / cost > bar {
                bar = expected / cost;
                best = Some((length, bar));
            }
        }
        best.or_else(|| self.probe(drafter, one))
    }

    /// A single token, now and then, of a drafter that does not pay: things change.
    fn probe(&self, drafter: &Drafter, one: f64) -> Option<(u32, f64)> {
        let cost = self.round(drafter, 1, one);
        let due = self.lost <= 0.25 * SHARE * self.spent - (cost - one);
        (due && cost < 3.0 * one).then_some((1, 1.0 / cost))
    }

    fn round(&self, drafter: &Drafter, length: usize, one: f64) -> f64 {
        let drafting = drafter.drafting.cost(length, one);
        let verifying = self.verification.cost(length + 1);
        if drafter.overlaps { verifying.max(drafting) } else { verifying + drafting }
    }

    fn affordable(&self, risk: f64, one: f64) -> bool {
        self.lost + risk <= START * one + SHARE * self.spent
    }

    /// The confidence at which one more token costs more time than it saves.
    fn threshold(&self, index: usize, max: u32, rate: f64, one: f64) -> f32 {
        let drafter = &self.drafters[index];
        let length = max as usize;
        let marginal = self.round(drafter, length + 1, one) - self.round(drafter, length, one);
        (0.5 * rate * marginal).clamp(0.0, 0.5) as f32
    }

    /// Plain decoding: step by step while a free drafter may have something to say after each
    /// token, else in growing stretches.
    fn decode(&self, asked: &[bool], remaining: u32, one: f64) -> Plan {
        let free = (0..asked.len().min(self.drafters.len())).any(|index| self.free(index, one));
        Plan::Decode(if free { 1 } else { self.plain.min(remaining.max(1)) })
    }
}
