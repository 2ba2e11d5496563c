//! Drives one request, round by round: a race, then the block of ballots that it brought, place by place.

use tightwad_plugin_sdk::{Ballot, Commit, Error, RaceDraft, Ruling, TargetFacts, TokenId};

use crate::audits::Audits;
use crate::ballots::{Score, advance, begins};
use crate::hedge::ABSENT;
use crate::host::Host;
use crate::memory::Known;
use crate::paths::{self, Costs};
use crate::rules::{self, Rule, Terms};
use crate::settings::Settings;

/// Rounds after which audits are looked at again.
const LOOK: u32 = 8;
/// Fruitless rounds in a row after which the target decodes a stretch: before, the drafters may only think
/// that the answer ends here.
const PATIENCE: u32 = 2;
/// Tokens of the first stretch, and how often it may double.
const STRETCH: u32 = 16;
const DOUBLINGS: u32 = 3;

/// Acceptances without a token after which no more are tried: the request forbids them.
const REFUSALS: u32 = 2;
/// What rounds in which nothing can be accepted may lose, in tokens of plain decoding.
const ALLOWED: f64 = 4.0;

/// The state of one request.
pub struct Drive<'a, H> {
    host: &'a H,
    settings: Settings,
    terms: Terms,
    target: TargetFacts,
    known: Known,
    audits: Audits,
    /// Who is asked: all that are there.
    drafters: Vec<u32>,
    /// Who came to the last race, and how long it took.
    came: Vec<bool>,
    raced: u64,
    /// The policy plugin may still rule.
    policy: bool,
    /// The rule that was said to be at work, and what is to be said of the next one.
    said: Option<Rule>,
    why: String,
    /// Acceptances that brought nothing.
    refused: u32,
    /// Tokens that were committed since the target last evaluated anything.
    behind: u32,
    rounds: u32,
    /// Rounds in a row that were better left out.
    fruitless: u32,
    /// Nanoseconds that rounds took longer than plain decoding, gains subtracted; not below 0.
    lost: f64,
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
            drafters: (0..)
                .zip(&facts)
                .filter(|(_, facts)| !facts.unavailable)
                .map(|(index, _)| index)
                .collect(),
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
    fn base(&self) -> Rule {
        // Before the first ruling nobody knows whether there is a plugin.
        if self.policy && self.said.is_some() { Rule::Plugin } else { self.settings.rule }
    }

    /// Says which rule is at work, where that was not said.
    fn announce(&mut self) -> Rule {
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
        for RaceDraft { drafter, draft } in answers {
            let Some(came) = self.came.get_mut(drafter as usize) else { continue };
            if !std::mem::replace(came, true) && !draft.proposals.is_empty() {
                let weight = self.known.weights.of(drafter as usize) as f32;
                ballots.push(Ballot { drafter, weight, proposals: draft.proposals });
            }
        }
        Ok(ballots)
    }

    /// Goes through the ballots until the target was asked or nothing is left of them; true when
    /// generation ended. Each turn takes at least a token off a ballot, so there is an end.
    fn block(&mut self, mut ballots: Vec<Ballot>) -> Result<bool, Error> {
        while !ballots.is_empty() {
            let tokens = match self.ruling(&ballots) {
                Ruling::Accept(tokens) if self.may_accept(&ballots, &tokens) => tokens,
                // What cannot be accepted is verified.
                Ruling::Accept(_) => return self.verify(&ballots, Vec::new()),
                Ruling::Verify(paths) => return self.verify(&ballots, paths),
                Ruling::Decode(tokens) => return self.decode(&ballots, tokens),
            };
            let audit = self.audits.is_due();
            let accepted = self.host.accept(&tokens, audit)?;
            if accepted.finished {
                return Ok(true);
            }
            let count = (accepted.count as usize).min(tokens.len());
            self.accepted(count);
            advance(&mut ballots, &tokens[..count]);
            if count < tokens.len() {
                // The request forbids the next one: the target knows what it wants instead.
                return self.verify(&ballots, Vec::new());
            }
        }
        Ok(false)
    }

    /// The plugin's ruling, or that of the built-in rule.
    fn ruling(&mut self, ballots: &[Ballot]) -> Ruling {
        let drafters = self.terms.drafters as u32;
        let ruled = if self.policy { self.host.ask(ballots, drafters) } else { None };
        self.policy = ruled.is_some();
        let rule = self.announce();
        ruled.unwrap_or_else(|| rules::rule(rule, ballots, &self.terms))
    }

    fn may_accept(&self, ballots: &[Ballot], tokens: &[TokenId]) -> bool {
        self.accepts() && !tokens.is_empty() && ballots.iter().any(|ballot| begins(ballot, tokens))
    }

    /// True unless audits, or the request, are against it.
    fn accepts(&self) -> bool {
        self.refused < REFUSALS && self.said != Some(Rule::Verify)
    }

    fn accepted(&mut self, tokens: usize) {
        if tokens == 0 {
            self.refused += 1;
        } else {
            self.refused = 0;
            self.fruitless = 0;
            self.behind = self.behind.saturating_add(tokens as u32);
        }
    }

    /// Lets the target look at `paths`; none: at whatever of the ballots is worth it.
    fn verify(&mut self, ballots: &[Ballot], paths: Vec<Vec<TokenId>>) -> Result<bool, Error> {
        let mut paths = paths::limited(paths);
        if paths.is_empty() {
            paths = self.merged(ballots);
        }
        if paths.is_empty() {
            return self.fruitless(ballots);
        }
        let commit = self.host.verify(&paths)?;
        self.learn(ballots, &commit);
        if commit.finished {
            return Ok(true);
        }
        if self.accepts() || !self.is_losing(commit.tokens.len(), commit.cost) {
            self.fruitless = 0;
            return Ok(false);
        }
        self.fruitless(&[])
    }

    fn merged(&self, ballots: &[Ballot]) -> Vec<Vec<TokenId>> {
        let (token, row) = (self.target.time_per_token as f64, self.target.time_per_row as f64);
        let way = self.target.round_trip as f64;
        let costs = Costs {
            round: self.raced as f64 + way + token + f64::from(self.behind) * row,
            // Without both there is nothing to compare.
            row: if token > 0.0 { row } else { 0.0 },
        };
        let share = |drafter: u32| self.known.accuracies[drafter as usize].share();
        let longest = self.host.remaining().saturating_sub(1) as usize;
        paths::merge(ballots, share, costs, longest)
    }

    /// Where nothing can be accepted, races must pay as drafts do. True when they have not of late.
    fn is_losing(&mut self, tokens: usize, nanoseconds: u64) -> bool {
        let plain = self.target.time_per_token as f64;
        let took = self.raced as f64 + nanoseconds as f64;
        self.lost = (self.lost + took - tokens as f64 * plain).max(0.0);
        plain > 0.0 && self.lost > ALLOWED * plain
    }

    /// What the drafters say is of no use: the target goes on alone, the longer the more often that is so.
    fn fruitless(&mut self, ballots: &[Ballot]) -> Result<bool, Error> {
        self.fruitless = self.fruitless.saturating_add(1);
        let doublings = self.fruitless.saturating_sub(PATIENCE + 1).min(DOUBLINGS);
        let stretch = if self.fruitless > PATIENCE { STRETCH << doublings } else { 1 };
        self.decode(ballots, stretch)
    }

    /// The target generates plainly; that, too, shows who was right.
    fn decode(&mut self, ballots: &[Ballot], tokens: u32) -> Result<bool, Error> {
        let commit = if tokens <= 1 { self.host.verify(&[])? } else { self.host.decode(tokens)? };
        self.learn(ballots, &commit);
        Ok(commit.finished)
    }

    /// Compares ballots with what the target chose.
    fn learn(&mut self, ballots: &[Ballot], commit: &Commit) {
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
