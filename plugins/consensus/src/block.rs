//! One block of ballots: what the rule makes of it, place by place.

use tightwad_plugin_sdk::{Ballot, Error, Ruling, Token};

use crate::ballots::{advance, begins};
use crate::drive::Drive;
use crate::host::Host;
use crate::paths::{self, Costs};
use crate::rules::{self, Rule};

/// Acceptances without a token after which no more are tried: the request forbids them.
const REFUSALS: u32 = 2;
/// What rounds in which nothing can be accepted may lose, in tokens of plain decoding.
const ALLOWED: f64 = 4.0;

impl<H: Host> Drive<'_, H> {
    /// Goes through the ballots until the target was asked or nothing is left of them; true when
    /// generation ended. Each turn takes at least a token off a ballot, so there is an end.
    pub(crate) fn block(&mut self, mut ballots: Vec<Ballot>) -> Result<bool, Error> {
        while !ballots.is_empty() {
            let tokens = match self.ruling(&ballots) {
                Ruling::Accept(tokens) if self.may_accept(&ballots, &tokens) => tokens,
                // What cannot be accepted is verified, whoever ruled.
                Ruling::Accept(_) => return self.verify(&ballots, Vec::new()),
                Ruling::Verify(paths) => return self.verify(&ballots, paths),
                Ruling::Decode(tokens) => return self.decode(&ballots, tokens),
            };
            let audit = self.audits.is_due();
            let accepted = self.host.accept(&tokens, audit)?;
            if accepted.finished {
                return Ok(true);
            }
            let count = (accepted.tokens as usize).min(tokens.len());
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

    fn may_accept(&self, ballots: &[Ballot], tokens: &[Token]) -> bool {
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
    fn verify(&mut self, ballots: &[Ballot], paths: Vec<Vec<Token>>) -> Result<bool, Error> {
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
        if self.accepts() || !self.is_losing(commit.tokens.len(), commit.nanoseconds) {
            self.fruitless = 0;
            return Ok(false);
        }
        self.fruitless(&[])
    }

    fn merged(&self, ballots: &[Ballot]) -> Vec<Vec<Token>> {
        let (token, row) = (self.target.token as f64, self.target.row as f64);
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
        let plain = self.target.token as f64;
        let took = self.raced as f64 + nanoseconds as f64;
        self.lost = (self.lost + took - tokens as f64 * plain).max(0.0);
        plain > 0.0 && self.lost > ALLOWED * plain
    }
}
