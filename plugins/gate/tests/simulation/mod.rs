//! A host that keeps to `wit/reviewing.wit`, and checks that the mode does.

use std::cell::{Cell, RefCell};

use tightwad_gate::host::Host;
use tightwad_plugin_sdk::{
    Candidate, Error, Judgement, Member, Review, ReviewMethods, Settings, TokenScore, Verdict,
};

/// How a call goes wrong.
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
pub enum Ended {
    Approved(u32),
    Corrected(u32, u32),
    Rewritten,
}

/// A policy plugin.
pub type Policy = fn(u32, &Review) -> Verdict;

/// What a member writes, and what the reviewer thinks of it.
#[derive(Debug, Clone)]
pub struct Writer {
    pub lost: bool,
    pub busy: u32,
    pub characters: u32,
    pub whole: bool,
    pub scores: Result<Vec<f32>, Fault>,
    pub judgement: Result<Judgement, Fault>,
}

impl Writer {
    /// Writes what the reviewer scores like this and approves when asked.
    pub fn new(scores: &[f32]) -> Self {
        Self {
            lost: false,
            busy: 0,
            characters: 40,
            whole: true,
            scores: Ok(scores.to_vec()),
            judgement: Ok(Judgement::Approve),
        }
    }

    pub fn judged(mut self, judgement: Judgement) -> Self {
        self.judgement = Ok(judgement);
        self
    }

    pub fn lost() -> Self {
        Self { lost: true, ..Self::new(&[]) }
    }
}

/// One request.
pub struct Simulation {
    pub fleet: Vec<Writer>,
    pub settings: Settings,
    pub ways: ReviewMethods,
    pub policy: Option<Policy>,
    /// The call to write that fails, counted from 0.
    pub write_fails: Option<(usize, Fault)>,
    /// How approving and correcting fail.
    pub end_fails: Option<Fault>,
    pub rewrite_fails: Option<Fault>,
    /// Members that were asked to write, call by call.
    pub writes: RefCell<Vec<Vec<u32>>>,
    /// Who wrote the candidates that came.
    pub came: RefCell<Vec<u32>>,
    pub scored: RefCell<Vec<u32>>,
    /// What went to the client early: a candidate, and how many of its tokens.
    pub passed: RefCell<Vec<(u32, u32)>>,
    pub pass_fails: Option<Fault>,
    pub asked: RefCell<Vec<u32>>,
    pub ruled: Cell<usize>,
    pub ended: Cell<Option<Ended>>,
    pub warnings: RefCell<Vec<String>>,
}

impl Simulation {
    pub fn new(ways: (bool, bool), fleet: &[Writer]) -> Self {
        Self {
            fleet: fleet.to_vec(),
            settings: Settings::default(),
            ways: ReviewMethods { score: ways.0, judge: ways.1, policy: false },
            policy: None,
            write_fails: None,
            end_fails: None,
            rewrite_fails: None,
            writes: RefCell::default(),
            came: RefCell::default(),
            scored: RefCell::default(),
            passed: RefCell::default(),
            pass_fails: None,
            asked: RefCell::default(),
            ruled: Cell::default(),
            ended: Cell::default(),
            warnings: RefCell::default(),
        }
    }

    fn writer(&self, candidate: u32) -> &Writer {
        assert_eq!(self.ended.get(), None, "nothing comes after the end");
        &self.fleet[self.came.borrow()[candidate as usize] as usize]
    }

    fn end(&self, how: Ended, fails: Option<Fault>) -> Result<(), Error> {
        assert_eq!(self.ended.get(), None, "a request ends once");
        if let Some(fault) = fails {
            return Err(fault.error());
        }
        self.ended.set(Some(how));
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
            pending_requests: writer.busy,
            time_per_token: 0,
            written: 0,
            approved: 0,
        };
        self.fleet.iter().map(member).collect()
    }

    fn ways(&self) -> ReviewMethods {
        ReviewMethods { policy: self.policy.is_some(), ..self.ways }
    }

    fn write(&self, members: &[u32], enough: u32) -> Result<Vec<Candidate>, Error> {
        assert_eq!(self.ended.get(), None, "nothing comes after the end");
        assert!(enough > 0 && enough as usize == members.len(), "all that are asked are wanted");
        let call = self.writes.borrow().len();
        for member in members {
            assert!((*member as usize) < self.fleet.len());
            assert!(!self.writes.borrow().concat().contains(member), "nobody is asked twice");
        }
        self.writes.borrow_mut().push(members.to_vec());
        if let Some((fails, fault)) = self.write_fails
            && fails == call
        {
            return Err(fault.error());
        }
        let there = members.iter().copied().filter(|member| !self.fleet[*member as usize].lost);
        let candidate = |member: u32| {
            self.came.borrow_mut().push(member);
            let writer = &self.fleet[member as usize];
            Candidate {
                member,
                token_count: writer.characters / 4,
                character_count: writer.characters,
                complete: writer.whole,
                elapsed: 1_000_000,
            }
        };
        Ok(there.map(candidate).collect())
    }

    fn score(&self, candidate: u32, tokens: u32) -> Result<Vec<TokenScore>, Error> {
        let writer = self.writer(candidate);
        assert!(self.ways.score && writer.characters > 0);
        let known = self.scored.borrow().contains(&candidate);
        assert!(!known || tokens > 32, "what was scored is not scored again");
        if !known {
            self.scored.borrow_mut().push(candidate);
        }
        let own = |logprob: &f32| TokenScore { logprob: *logprob, rank: 0 };
        match &writer.scores {
            Ok(scores) => Ok(scores.iter().take(tokens as usize).map(own).collect()),
            Err(fault) => Err(fault.error()),
        }
    }

    fn pass(&self, candidate: u32, tokens: u32) -> Result<(), Error> {
        let scores = self.writer(candidate).scores.clone().unwrap_or_default();
        assert!(tokens as usize <= scores.len() && self.scored.borrow().contains(&candidate));
        let mut passed = self.passed.borrow_mut();
        assert!(passed.iter().all(|(own, before)| *own == candidate && *before < tokens), "{passed:?}");
        if let Some(fault) = self.pass_fails {
            return Err(fault.error());
        }
        passed.push((candidate, tokens));
        Ok(())
    }

    fn ask(&self, candidate: u32) -> Result<Judgement, Error> {
        let writer = self.writer(candidate);
        assert!(self.ways.judge && writer.characters > 0);
        assert!(!self.asked.borrow().contains(&candidate), "one judgement is enough");
        self.asked.borrow_mut().push(candidate);
        writer.judgement.clone().map_err(Fault::error)
    }

    fn judge(&self, candidate: u32, review: &Review) -> Option<Verdict> {
        let scores = self.writer(candidate).scores.clone().unwrap_or_default();
        assert_eq!(review.scores.len(), if self.ways.score { scores.len() } else { 0 });
        assert!(review.judgement.is_none() || self.ways.judge);
        let policy = self.policy?;
        self.ruled.set(self.ruled.get() + 1);
        Some(policy(candidate, review))
    }

    fn approve(&self, candidate: u32) -> Result<(), Error> {
        self.writer(candidate);
        assert!(self.passed.borrow().iter().all(|(own, _)| *own == candidate));
        self.end(Ended::Approved(candidate), self.end_fails)
    }

    fn correct(&self, candidate: u32, keep: u32) -> Result<(), Error> {
        let scores = self.writer(candidate).scores.clone().unwrap_or_default();
        assert!(self.scored.borrow().contains(&candidate) && (1..=scores.len()).contains(&(keep as usize)));
        assert!(self.passed.borrow().iter().all(|(own, tokens)| *own == candidate && keep >= *tokens));
        self.end(Ended::Corrected(candidate, keep), self.end_fails)
    }

    fn rewrite(&self) -> Result<(), Error> {
        self.end(Ended::Rewritten, self.rewrite_fails)
    }

    fn warn(&self, text: &str) {
        self.warnings.borrow_mut().push(text.to_owned());
    }
}
