//! A host that follows `wit/reviewing.wit`, and checks that the mode does.

use std::cell::{Cell, RefCell};

use tightwad_gate::host::Host;
use tightwad_plugin_sdk::{
    Candidate, Error, Judgement, Member, Review, ReviewMethods, Settings, TokenScore, Verdict,
};

/// The way in which a call fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    Refused,
    Backend,
    Finished,
}

impl Fault {
    fn error(self) -> Error {
        match self {
            Self::Refused => Error::Refused("it was too much".into()),
            Self::Backend => Error::Backend("it broke".into()),
            Self::Finished => Error::Finished,
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    Approved(u32),
    Corrected(u32, u32),
    Rejected,
}

/// A policy plugin.
pub type Policy = fn(u32, &Review) -> Verdict;

/// A member, its answer, and the reviewer's opinion of it.
#[derive(Debug, Clone)]
pub struct Writer {
    pub fails: bool,
    pub pending_requests: u32,
    pub character_count: u32,
    pub complete: bool,
    pub scores: Result<Vec<f32>, Fault>,
    pub judgement: Result<Judgement, Fault>,
}

impl Writer {
    /// Writes an answer with these scores. The reviewer approves it when asked.
    pub fn new(scores: &[f32]) -> Self {
        Self {
            fails: false,
            pending_requests: 0,
            character_count: 40,
            complete: true,
            scores: Ok(scores.to_vec()),
            judgement: Ok(Judgement::Approve),
        }
    }

    pub fn with_judgement(mut self, judgement: Judgement) -> Self {
        self.judgement = Ok(judgement);
        self
    }

    pub fn failing() -> Self {
        Self { fails: true, ..Self::new(&[]) }
    }
}

/// One request.
pub struct Simulation {
    pub fleet: Vec<Writer>,
    pub settings: Settings,
    pub methods: ReviewMethods,
    pub policy: Option<Policy>,
    /// The call of `generate` that fails, counted from 0.
    pub generate_fails: Option<(usize, Fault)>,
    /// How `approve` and `correct` fail.
    pub end_fails: Option<Fault>,
    pub reject_fails: Option<Fault>,
    /// The members of each call of `generate`.
    pub generate_calls: RefCell<Vec<Vec<u32>>>,
    /// The writer of each candidate.
    pub candidate_writers: RefCell<Vec<u32>>,
    pub scored: RefCell<Vec<u32>>,
    /// The released prefixes: a candidate, and a number of its tokens.
    pub released: RefCell<Vec<(u32, u32)>>,
    pub release_fails: Option<Fault>,
    pub judged: RefCell<Vec<u32>>,
    pub policy_calls: Cell<usize>,
    pub outcome: Cell<Option<Outcome>>,
    pub warnings: RefCell<Vec<String>>,
}

impl Simulation {
    pub fn new(methods: (bool, bool), fleet: &[Writer]) -> Self {
        Self {
            fleet: fleet.to_vec(),
            settings: Settings::default(),
            methods: ReviewMethods { score: methods.0, judge: methods.1, policy: false },
            policy: None,
            generate_fails: None,
            end_fails: None,
            reject_fails: None,
            generate_calls: RefCell::default(),
            candidate_writers: RefCell::default(),
            scored: RefCell::default(),
            released: RefCell::default(),
            release_fails: None,
            judged: RefCell::default(),
            policy_calls: Cell::default(),
            outcome: Cell::default(),
            warnings: RefCell::default(),
        }
    }

    fn writer(&self, candidate: u32) -> &Writer {
        assert_eq!(self.outcome.get(), None, "the request has ended");
        &self.fleet[self.candidate_writers.borrow()[candidate as usize] as usize]
    }

    fn end(&self, outcome: Outcome, fails: Option<Fault>) -> Result<(), Error> {
        assert_eq!(self.outcome.get(), None, "a request ends once");
        if let Some(fault) = fails {
            return Err(fault.error());
        }
        self.outcome.set(Some(outcome));
        Ok(())
    }
}

impl Host for Simulation {
    fn settings(&self) -> Settings {
        self.settings.clone()
    }

    fn fleet(&self) -> Vec<Member> {
        let member = |writer: &Writer| Member {
            name: "a member".to_owned(),
            pending_requests: writer.pending_requests,
            time_per_token: 0,
            written: 0,
            approved: 0,
        };
        self.fleet.iter().map(member).collect()
    }

    fn review_methods(&self) -> ReviewMethods {
        ReviewMethods { policy: self.policy.is_some(), ..self.methods }
    }

    fn generate(&self, members: &[u32], wanted: u32) -> Result<Vec<Candidate>, Error> {
        assert_eq!(self.outcome.get(), None, "the request has ended");
        assert!(wanted > 0 && wanted as usize == members.len(), "all asked members are wanted");
        let call = self.generate_calls.borrow().len();
        for member in members {
            assert!((*member as usize) < self.fleet.len());
            assert!(!self.generate_calls.borrow().concat().contains(member), "a member is asked once");
        }
        self.generate_calls.borrow_mut().push(members.to_vec());
        if let Some((fails, fault)) = self.generate_fails
            && fails == call
        {
            return Err(fault.error());
        }
        let successful = members.iter().copied().filter(|member| !self.fleet[*member as usize].fails);
        let candidate = |member: u32| {
            self.candidate_writers.borrow_mut().push(member);
            let writer = &self.fleet[member as usize];
            Candidate {
                member,
                token_count: writer.character_count / 4,
                character_count: writer.character_count,
                complete: writer.complete,
                elapsed: 1_000_000,
            }
        };
        Ok(successful.map(candidate).collect())
    }

    fn score(&self, candidate: u32, tokens: u32) -> Result<Vec<TokenScore>, Error> {
        let writer = self.writer(candidate);
        assert!(self.methods.score && writer.character_count > 0);
        let known = self.scored.borrow().contains(&candidate);
        assert!(!known || tokens > 32, "scored tokens are not scored again");
        if !known {
            self.scored.borrow_mut().push(candidate);
        }
        let own = |logprob: &f32| TokenScore { logprob: *logprob, rank: 0 };
        match &writer.scores {
            Ok(scores) => Ok(scores.iter().take(tokens as usize).map(own).collect()),
            Err(fault) => Err(fault.error()),
        }
    }

    fn release_prefix(&self, candidate: u32, tokens: u32) -> Result<(), Error> {
        let scores = self.writer(candidate).scores.clone().unwrap_or_default();
        assert!(tokens as usize <= scores.len() && self.scored.borrow().contains(&candidate));
        let mut released = self.released.borrow_mut();
        assert!(released.iter().all(|(own, before)| *own == candidate && *before < tokens), "{released:?}");
        if let Some(fault) = self.release_fails {
            return Err(fault.error());
        }
        released.push((candidate, tokens));
        Ok(())
    }

    fn ask_reviewer(&self, candidate: u32) -> Result<Judgement, Error> {
        let writer = self.writer(candidate);
        assert!(self.methods.judge && writer.character_count > 0);
        assert!(!self.judged.borrow().contains(&candidate), "one judgement is wanted");
        self.judged.borrow_mut().push(candidate);
        writer.judgement.clone().map_err(Fault::error)
    }

    fn ask_policy(&self, candidate: u32, review: &Review) -> Option<Verdict> {
        let scores = self.writer(candidate).scores.clone().unwrap_or_default();
        assert_eq!(review.scores.len(), if self.methods.score { scores.len() } else { 0 });
        assert!(review.judgement.is_none() || self.methods.judge);
        let policy = self.policy?;
        self.policy_calls.set(self.policy_calls.get() + 1);
        Some(policy(candidate, review))
    }

    fn approve(&self, candidate: u32) -> Result<(), Error> {
        self.writer(candidate);
        assert!(self.released.borrow().iter().all(|(own, _)| *own == candidate));
        self.end(Outcome::Approved(candidate), self.end_fails)
    }

    fn correct(&self, candidate: u32, keep: u32) -> Result<(), Error> {
        let scores = self.writer(candidate).scores.clone().unwrap_or_default();
        assert!(self.scored.borrow().contains(&candidate) && (1..=scores.len()).contains(&(keep as usize)));
        assert!(self.released.borrow().iter().all(|(own, tokens)| *own == candidate && keep >= *tokens));
        self.end(Outcome::Corrected(candidate, keep), self.end_fails)
    }

    fn reject(&self) -> Result<(), Error> {
        self.end(Outcome::Rejected, self.reject_fails)
    }

    fn warn(&self, text: &str) {
        self.warnings.borrow_mut().push(text.to_owned());
    }
}
