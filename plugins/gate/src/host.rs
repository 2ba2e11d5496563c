//! The host's functions as a trait, so that tests can simulate the host.

use tightwad_plugin_sdk::{
    Candidate, Error, Judgement, Level, Member, Review, ReviewMethods, Settings, Task, TokenScore, Verdict,
    log,
};

/// One request, as `wit/reviewing.wit` and `log.wit` describe it.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub trait Host {
    fn settings(&self) -> Settings;
    fn fleet(&self) -> Vec<Member>;
    fn review_methods(&self) -> ReviewMethods;
    fn generate(&self, members: &[u32], wanted: u32) -> Result<Vec<Candidate>, Error>;
    fn score(&self, candidate: u32, token_count: u32) -> Result<Vec<TokenScore>, Error>;
    fn release_prefix(&self, candidate: u32, token_count: u32) -> Result<(), Error>;
    fn ask_reviewer(&self, candidate: u32) -> Result<Judgement, Error>;
    /// `None`: the script named no policy.
    fn ask_policy(&self, candidate: u32, review: &Review) -> Option<Verdict>;
    fn approve(&self, candidate: u32) -> Result<(), Error>;
    fn correct(&self, candidate: u32, kept_tokens: u32) -> Result<(), Error>;
    fn reject(&self) -> Result<(), Error>;
    fn warn(&self, text: &str);
}

impl Host for Task {
    fn settings(&self) -> Settings {
        Task::settings(self).into()
    }

    fn fleet(&self) -> Vec<Member> {
        Task::fleet(self)
    }

    fn review_methods(&self) -> ReviewMethods {
        self.review_methods()
    }

    fn generate(&self, members: &[u32], wanted: u32) -> Result<Vec<Candidate>, Error> {
        self.generate(members, wanted)
    }

    fn score(&self, candidate: u32, token_count: u32) -> Result<Vec<TokenScore>, Error> {
        Task::score(self, candidate, token_count)
    }

    fn release_prefix(&self, candidate: u32, token_count: u32) -> Result<(), Error> {
        self.release_prefix(candidate, token_count)
    }

    fn ask_reviewer(&self, candidate: u32) -> Result<Judgement, Error> {
        self.ask_reviewer(candidate)
    }

    fn ask_policy(&self, candidate: u32, review: &Review) -> Option<Verdict> {
        self.ask_policy(candidate, review)
    }

    fn approve(&self, candidate: u32) -> Result<(), Error> {
        Task::approve(self, candidate)
    }

    fn correct(&self, candidate: u32, kept_tokens: u32) -> Result<(), Error> {
        Task::correct(self, candidate, kept_tokens)
    }

    fn reject(&self) -> Result<(), Error> {
        self.reject()
    }

    fn warn(&self, text: &str) {
        log(Level::Warn, text);
    }
}
