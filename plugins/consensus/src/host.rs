//! The host's functions as a trait, so that tests can simulate the host.

use tightwad_plugin_sdk::{
    Accepted, AuditStats, Ballot, Commit, DrafterFacts, Error, Job, RaceDraft, RaceLimits, Ruling, Settings,
    TargetFacts, TokenId, accept_unverified, ask_policy, get_audit_stats, now, report_rule,
};

/// One request, as `wit/decoding.wit`, `unverified.wit`, `active-policy.wit` and `clock.wit` describe it.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub trait Host {
    fn settings(&self) -> Settings;
    fn load_state(&self) -> String;
    fn save_state(&self, state: &str);
    fn remaining(&self) -> u32;
    fn target(&self) -> TargetFacts;
    fn drafters(&self) -> Vec<DrafterFacts>;
    fn race(&self, drafters: &[u32], max_tokens: u32, limits: RaceLimits) -> Result<Vec<RaceDraft>, Error>;
    /// Verifies the paths. No paths: decodes one token.
    fn verify(&self, paths: &[Vec<TokenId>]) -> Result<Commit, Error>;
    fn decode(&self, max_tokens: u32) -> Result<Commit, Error>;
    fn accept_unverified(&self, tokens: &[TokenId], audit: bool) -> Result<Accepted, Error>;
    fn audit_stats(&self) -> AuditStats;
    fn report_rule(&self, rule: &str, reason: &str);
    /// `None`: the script named no policy.
    fn ask_policy(&self, ballots: &[Ballot], drafter_count: u32) -> Option<Ruling>;
    fn now(&self) -> u64;
}

impl Host for Job {
    fn settings(&self) -> Settings {
        Job::settings(self).into()
    }

    fn load_state(&self) -> String {
        String::from_utf8(self.load_state()).unwrap_or_default()
    }

    fn save_state(&self, state: &str) {
        self.save_state(state.as_bytes());
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

    fn race(&self, drafters: &[u32], max_tokens: u32, limits: RaceLimits) -> Result<Vec<RaceDraft>, Error> {
        // The rule ends a ballot, not a drafter's low confidence.
        Job::race(self, drafters, max_tokens, 0.0, limits)
    }

    fn verify(&self, paths: &[Vec<TokenId>]) -> Result<Commit, Error> {
        match paths {
            [] => Job::verify(self, &[]),
            [path] => Job::verify(self, path),
            _ => self.verify_tree(paths),
        }
    }

    fn decode(&self, max_tokens: u32) -> Result<Commit, Error> {
        Job::decode(self, max_tokens)
    }

    fn accept_unverified(&self, tokens: &[TokenId], audit: bool) -> Result<Accepted, Error> {
        accept_unverified(self, tokens, audit)
    }

    fn audit_stats(&self) -> AuditStats {
        get_audit_stats(self)
    }

    fn report_rule(&self, rule: &str, reason: &str) {
        report_rule(self, rule, reason);
    }

    fn ask_policy(&self, ballots: &[Ballot], drafter_count: u32) -> Option<Ruling> {
        ask_policy(ballots, drafter_count)
    }

    fn now(&self) -> u64 {
        now()
    }
}
