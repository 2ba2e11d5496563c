//! What the mode asks of the host, as a trait: tests put a simulated host in its place.

use tightwad_plugin_sdk::{
    Accepted, Agreement, Answer, Ballot, Commit, DrafterFacts, Error, Job, RaceEnd, Ruling, TargetFacts,
    Token, accept_unverified, ask_policy, at_work, audited, now,
};

/// One request, as `wit/decoding.wit`, `unverified.wit`, `policy.wit` and `clock.wit` describe it.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub trait Host {
    fn settings(&self) -> String;
    fn memory(&self) -> String;
    fn remember(&self, note: &str);
    fn remaining(&self) -> u32;
    fn target(&self) -> TargetFacts;
    fn drafters(&self) -> Vec<DrafterFacts>;
    fn race(&self, drafters: &[u32], max: u32, end: RaceEnd) -> Result<Vec<Answer>, Error>;
    /// Without paths: one token.
    fn verify(&self, paths: &[Vec<Token>]) -> Result<Commit, Error>;
    fn decode(&self, max: u32) -> Result<Commit, Error>;
    fn accept(&self, tokens: &[Token], audit: bool) -> Result<Accepted, Error>;
    fn audited(&self) -> Agreement;
    fn at_work(&self, rule: &str, why: &str);
    /// `None`: the script named no policy.
    fn ask(&self, ballots: &[Ballot], drafters: u32) -> Option<Ruling>;
    fn now(&self) -> u64;
}

impl Host for Job {
    fn settings(&self) -> String {
        Job::settings(self)
    }

    fn memory(&self) -> String {
        Job::memory(self)
    }

    fn remember(&self, note: &str) {
        Job::remember(self, note);
    }

    fn remaining(&self) -> u32 {
        Job::remaining(self)
    }

    fn target(&self) -> TargetFacts {
        Job::target(self)
    }

    fn drafters(&self) -> Vec<DrafterFacts> {
        Job::drafters(self)
    }

    fn race(&self, drafters: &[u32], max: u32, end: RaceEnd) -> Result<Vec<Answer>, Error> {
        // Ballots of full length: a rule, not a drafter's doubt, says where they end.
        Job::race(self, drafters, max, 0.0, end)
    }

    fn verify(&self, paths: &[Vec<Token>]) -> Result<Commit, Error> {
        match paths {
            [] => Job::verify(self, &[]),
            [path] => Job::verify(self, path),
            _ => self.verify_tree(paths),
        }
    }

    fn decode(&self, max: u32) -> Result<Commit, Error> {
        Job::decode(self, max)
    }

    fn accept(&self, tokens: &[Token], audit: bool) -> Result<Accepted, Error> {
        accept_unverified(self, tokens, audit)
    }

    fn audited(&self) -> Agreement {
        audited(self)
    }

    fn at_work(&self, rule: &str, why: &str) {
        at_work(self, rule, why);
    }

    fn ask(&self, ballots: &[Ballot], drafters: u32) -> Option<Ruling> {
        ask_policy(ballots, drafters)
    }

    fn now(&self) -> u64 {
        now()
    }
}
