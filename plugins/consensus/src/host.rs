//! What the mode asks of the host, as a trait: tests put a simulated host in its place.

use tightwad_plugin_sdk::{
    Accepted, AuditStats, Ballot, Commit, DrafterFacts, Error, Job, RaceDraft, RaceLimits, Ruling, Settings,
    TargetFacts, TokenId, accept_unverified, ask_policy, get_audit_stats, now, report_rule,
};

/// One request, as `wit/decoding.wit`, `unverified.wit`, `active-policy.wit` and `clock.wit` describe it.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub trait Host {
    fn settings(&self) -> Settings;
    fn memory(&self) -> String;
    fn remember(&self, note: &str);
    fn remaining(&self) -> u32;
    fn target(&self) -> TargetFacts;
    fn drafters(&self) -> Vec<DrafterFacts>;
    fn race(&self, drafters: &[u32], max: u32, limits: RaceLimits) -> Result<Vec<RaceDraft>, Error>;
    /// Without paths: one token.
    fn verify(&self, paths: &[Vec<TokenId>]) -> Result<Commit, Error>;
    fn decode(&self, max: u32) -> Result<Commit, Error>;
    fn accept(&self, tokens: &[TokenId], audit: bool) -> Result<Accepted, Error>;
    fn audited(&self) -> AuditStats;
    fn at_work(&self, rule: &str, why: &str);
    /// `None`: the script named no policy.
    fn ask(&self, ballots: &[Ballot], drafters: u32) -> Option<Ruling>;
    fn now(&self) -> u64;
}

impl Host for Job {
    fn settings(&self) -> Settings {
        Job::settings(self).into()
    }

    fn memory(&self) -> String {
        String::from_utf8(self.load_state()).unwrap_or_default()
    }

    fn remember(&self, note: &str) {
        self.save_state(note.as_bytes());
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

    fn race(&self, drafters: &[u32], max: u32, limits: RaceLimits) -> Result<Vec<RaceDraft>, Error> {
        // Ballots of full length: a rule, not a drafter's doubt, says where they end.
        Job::race(self, drafters, max, 0.0, limits)
    }

    fn verify(&self, paths: &[Vec<TokenId>]) -> Result<Commit, Error> {
        match paths {
            [] => Job::verify(self, &[]),
            [path] => Job::verify(self, path),
            _ => self.verify_tree(paths),
        }
    }

    fn decode(&self, max: u32) -> Result<Commit, Error> {
        Job::decode(self, max)
    }

    fn accept(&self, tokens: &[TokenId], audit: bool) -> Result<Accepted, Error> {
        accept_unverified(self, tokens, audit)
    }

    fn audited(&self) -> AuditStats {
        get_audit_stats(self)
    }

    fn at_work(&self, rule: &str, why: &str) {
        report_rule(self, rule, why);
    }

    fn ask(&self, ballots: &[Ballot], drafters: u32) -> Option<Ruling> {
        ask_policy(ballots, drafters)
    }

    fn now(&self) -> u64 {
        now()
    }
}
