//! What the mode asks of the host, as a trait: tests put a simulated host in its place.

use tightwad_plugin_sdk::{
    Candidate, Error, Judgement, Level, Member, Review, ReviewMethods, Settings, Task, TokenScore, Verdict,
    log,
};

/// One request, as `wit/reviewing.wit` and `log.wit` describe it.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub trait Host {
    fn settings(&self) -> Settings;
    fn fleet(&self) -> Vec<Member>;
    fn ways(&self) -> ReviewMethods;
    fn write(&self, members: &[u32], enough: u32) -> Result<Vec<Candidate>, Error>;
    fn score(&self, candidate: u32, tokens: u32) -> Result<Vec<TokenScore>, Error>;
    fn pass(&self, candidate: u32, tokens: u32) -> Result<(), Error>;
    fn ask(&self, candidate: u32) -> Result<Judgement, Error>;
    /// `None`: the script named no policy.
    fn judge(&self, candidate: u32, review: &Review) -> Option<Verdict>;
    fn approve(&self, candidate: u32) -> Result<(), Error>;
    fn correct(&self, candidate: u32, keep: u32) -> Result<(), Error>;
    fn rewrite(&self) -> Result<(), Error>;
    fn warn(&self, text: &str);
}

impl Host for Task {
    fn settings(&self) -> Settings {
        Task::settings(self).into()
    }

    fn fleet(&self) -> Vec<Member> {
        Task::fleet(self)
    }

    fn ways(&self) -> ReviewMethods {
        self.review_methods()
    }

    fn write(&self, members: &[u32], enough: u32) -> Result<Vec<Candidate>, Error> {
        self.generate(members, enough)
    }

    fn score(&self, candidate: u32, tokens: u32) -> Result<Vec<TokenScore>, Error> {
        Task::score(self, candidate, tokens)
    }

    fn pass(&self, candidate: u32, tokens: u32) -> Result<(), Error> {
        self.release_prefix(candidate, tokens)
    }

    fn ask(&self, candidate: u32) -> Result<Judgement, Error> {
        self.ask_reviewer(candidate)
    }

    fn judge(&self, candidate: u32, review: &Review) -> Option<Verdict> {
        self.ask_policy(candidate, review)
    }

    fn approve(&self, candidate: u32) -> Result<(), Error> {
        Task::approve(self, candidate)
    }

    fn correct(&self, candidate: u32, keep: u32) -> Result<(), Error> {
        Task::correct(self, candidate, keep)
    }

    fn rewrite(&self) -> Result<(), Error> {
        self.reject()
    }

    fn warn(&self, text: &str) {
        log(Level::Warn, text);
    }
}
