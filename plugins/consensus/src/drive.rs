//! Drives one request, round by round: a race, then the block that it brought.

use tightwad_plugin_sdk::{Answer, Ballot, Commit, Error, TargetFacts};

use crate::audits::Audits;
use crate::ballots::Score;
use crate::hedge::ABSENT;
use crate::host::Host;
use crate::memory::Known;
use crate::rules::{Rule, Terms};
use crate::settings::Settings;

/// Rounds after which audits are looked at again.
const LOOK: u32 = 8;
/// Fruitless rounds in a row after which the target decodes a stretch: before, the drafters may only think
/// that the answer ends here.
const PATIENCE: u32 = 2;
/// Tokens of the first stretch, and how often it may double.
const STRETCH: u32 = 16;
const DOUBLINGS: u32 = 3;

/// The state of one request.
pub struct Drive<'a, H> {
    pub(crate) host: &'a H,
    pub(crate) settings: Settings,
    pub(crate) terms: Terms,
    pub(crate) target: TargetFacts,
    pub(crate) known: Known,
    pub(crate) audits: Audits,
    /// Who is asked: all that are there.
    drafters: Vec<u32>,
    /// Who came to the last race, and how long it took.
    came: Vec<bool>,
    pub(crate) raced: u64,
    /// The policy plugin may still rule.
    pub(crate) policy: bool,
    /// The rule that was said to be at work, and what is to be said of the next one.
    pub(crate) said: Option<Rule>,
    pub(crate) why: String,
    /// Acceptances that brought nothing.
    pub(crate) refused: u32,
    /// Tokens that were committed since the target last evaluated anything.
    pub(crate) behind: u32,
    rounds: u32,
    /// Rounds in a row that were better left out.
    pub(crate) fruitless: u32,
    /// Nanoseconds that rounds took longer than plain decoding, gains subtracted; not below 0.
    pub(crate) lost: f64,
}

impl<'a, H: Host> Drive<'a, H> {
    /// Reads what the request is made of.
    #[must_use]
    pub fn new(host: &'a H) -> Self {
        let settings = Settings::read(&host.settings());
        let facts = host.drafters();
        let mut known = Known::new(&facts, settings.block);
        known.read(&host.memory());
        Self {
            host,
            settings,
            terms: Terms::new(facts.len(), settings.quorum, settings.threshold),
            target: host.target(),
            known,
            audits: Audits::new(host.now(), settings.audit),
            drafters: (0..).zip(&facts).filter(|(_, facts)| !facts.absent).map(|(index, _)| index).collect(),
            came: vec![false; facts.len()],
            raced: 0,
            policy: true,
            said: None,
            why: String::new(),
            refused: 0,
            behind: 0,
            rounds: 0,
            fruitless: 0,
            lost: 0.0,
        }
    }

    /// Goes on until generation ended.
    ///
    /// # Errors
    ///
    /// What the host answered.
    pub fn run(&mut self) -> Result<(), Error> {
        let outcome = loop {
            match self.round() {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // Another request of this mode may have ended meanwhile.
        let mut latest = self.known.clone();
        latest.read(&self.host.memory());
        self.known.level.join(latest.level);
        self.host.remember(&self.known.write());
        outcome
    }

    /// One round; true when generation ended.
    fn round(&mut self) -> Result<bool, Error> {
        let remaining = self.host.remaining();
        if self.drafters.is_empty() {
            return self.decode(&[], remaining.max(1));
        }
        if remaining <= 1 {
            // No proposal comes before the target's own token.
            return self.decode(&[], 1);
        }
        if self.rounds.is_multiple_of(LOOK) {
            self.look();
        }
        self.rounds = self.rounds.wrapping_add(1);
        let ballots = self.race(self.settings.block.min(remaining))?;
        if ballots.is_empty() { self.fruitless(&ballots) } else { self.block(ballots) }
    }

    /// Looks at what audits have shown.
    fn look(&mut self) {
        let base = self.base();
        if let Some(why) = self.known.level.check(base, self.host.audited(), self.settings.floor) {
            self.why = why;
        }
        if self.said.is_some() {
            self.announce();
        }
    }

    /// Who rules as long as audits have nothing against it.
    pub(crate) fn base(&self) -> Rule {
        // Before the first ruling nobody knows whether there is a plugin.
        if self.policy && self.said.is_some() { Rule::Plugin } else { self.settings.rule }
    }

    /// Says which rule is at work, where that was not said.
    pub(crate) fn announce(&mut self) -> Rule {
        let base = if self.policy { Rule::Plugin } else { self.settings.rule };
        let rule = self.known.level.rule(base);
        if self.said.replace(rule) != Some(rule) {
            self.host.at_work(rule.name(), &std::mem::take(&mut self.why));
        }
        rule
    }

    /// Asks all drafters at once.
    fn race(&mut self, max: u32) -> Result<Vec<Ballot>, Error> {
        let end = self.known.deadlines.end(self.terms.quorum);
        let start = self.host.now();
        let answers = self.host.race(&self.drafters, max, end)?;
        self.raced = self.host.now().saturating_sub(start);
        self.known.deadlines.learn(&answers, self.raced);
        self.came.fill(false);
        let mut ballots = Vec::with_capacity(answers.len());
        for Answer { drafter, draft } in answers {
            let Some(came) = self.came.get_mut(drafter as usize) else { continue };
            if !std::mem::replace(came, true) && !draft.proposals.is_empty() {
                let weight = self.known.weights.of(drafter as usize) as f32;
                ballots.push(Ballot { drafter, weight, proposals: draft.proposals });
            }
        }
        Ok(ballots)
    }

    /// What the drafters say is of no use: the target goes on alone, the longer the more often that is so.
    pub(crate) fn fruitless(&mut self, ballots: &[Ballot]) -> Result<bool, Error> {
        self.fruitless = self.fruitless.saturating_add(1);
        let doublings = self.fruitless.saturating_sub(PATIENCE + 1).min(DOUBLINGS);
        let stretch = if self.fruitless > PATIENCE { STRETCH << doublings } else { 1 };
        self.decode(ballots, stretch)
    }

    /// The target generates plainly; that, too, shows who was right.
    pub(crate) fn decode(&mut self, ballots: &[Ballot], tokens: u32) -> Result<bool, Error> {
        let commit = if tokens <= 1 { self.host.verify(&[])? } else { self.host.decode(tokens)? };
        self.learn(ballots, &commit);
        Ok(commit.finished)
    }

    /// Compares ballots with what the target chose.
    pub(crate) fn learn(&mut self, ballots: &[Ballot], commit: &Commit) {
        self.behind = 0;
        // Who came and is not compared said something else than what was accepted, or nothing.
        let mut losses: Vec<Option<f64>> =
            self.came.iter().map(|came| if *came { None } else { Some(ABSENT) }).collect();
        let mut compared = false;
        for ballot in ballots {
            let (score, drafter) = (Score::of(ballot, &commit.tokens), ballot.drafter as usize);
            losses[drafter] = score.loss();
            compared |= score.loss().is_some();
            self.known.accuracies[drafter].learn(score);
        }
        if compared {
            self.known.weights.learn(&losses);
        }
    }
}
