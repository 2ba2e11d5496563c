//! A host with a clock of its own. Races end as `wit/decoding.wit` says, and audits answer at once.

use std::cell::{Cell, RefCell};

use tightwad_consensus::host::Host;
use tightwad_plugin_sdk::{
    Accepted, AuditStats, Ballot, Commit, Draft, DrafterFacts, Error, Proposal, RaceDraft, RaceLimits,
    Ruling, Settings, TargetFacts, TokenId,
};

/// What the target says at a place of the output.
pub const TRUTH: fn(usize) -> TokenId = |at| 10 * (at as u32 % 97);

/// What a drafter says at a place of the output.
pub type Says = fn(usize) -> TokenId;

/// A policy plugin.
pub type Policy = fn(&[Ballot]) -> Ruling;

/// One request after the other, with the same memory and audits.
pub struct Simulation {
    drafters: Vec<(Says, u64)>,
    settings: Settings,
    pub memory: RefCell<String>,
    /// What another request remembers while this one runs.
    pub meanwhile: Option<String>,
    pub length: usize,
    pub target_token: u64,
    pub dead: Vec<u32>,
    /// Those that could not be opened.
    pub absent: Vec<u32>,
    pub policy: Option<Policy>,
    /// Most tokens of an acceptance that the request allows.
    pub most_accepted: usize,
    pub clock: Cell<u64>,
    pub output: RefCell<Vec<TokenId>>,
    /// Until when drafters are busy.
    busy: RefCell<Vec<u64>>,
    pub passes: Cell<usize>,
    pub decodes: Cell<usize>,
    pub accepts: Cell<usize>,
    pub unverified: Cell<usize>,
    audits: Cell<(u64, u64)>,
    pub said: RefCell<Vec<(String, String)>>,
}

fn add<T: Copy + std::ops::Add<Output = T>>(cell: &Cell<T>, more: T) {
    cell.set(cell.get() + more);
}

impl Simulation {
    /// Drafters say what they say after so many nanoseconds.
    pub fn new(rule: &str, drafters: &[(Says, u64)]) -> Self {
        Self {
            drafters: drafters.to_vec(),
            settings: Settings::default().with("rule", rule),
            memory: RefCell::default(),
            meanwhile: None,
            length: 300,
            target_token: 20_000_000,
            dead: Vec::new(),
            absent: Vec::new(),
            policy: None,
            most_accepted: usize::MAX,
            clock: Cell::new(1),
            output: RefCell::default(),
            busy: RefCell::new(vec![0; drafters.len()]),
            passes: Cell::default(),
            decodes: Cell::default(),
            accepts: Cell::default(),
            unverified: Cell::default(),
            audits: Cell::default(),
            said: RefCell::default(),
        }
    }

    pub fn set(&mut self, key: &str, value: f64) {
        self.settings = std::mem::take(&mut self.settings).with(key, value);
    }

    /// The next request.
    pub fn again(&mut self) {
        self.output.take();
        self.said.take();
        self.busy.borrow_mut().fill(0);
        for cell in [&self.passes, &self.decodes, &self.accepts, &self.unverified] {
            cell.set(0);
        }
        self.clock.set(1);
    }

    fn live(&self) -> Result<(), Error> {
        if self.remaining() == 0 { Err(Error::Finished) } else { Ok(()) }
    }

    /// The target's next `tokens` tokens.
    fn commit(&self, tokens: usize, accepted: usize, nanoseconds: u64) -> Commit {
        let mut output = self.output.borrow_mut();
        let from = output.len();
        let to = (from + tokens).min(self.length);
        output.extend((from..to).map(TRUTH));
        add(&self.clock, nanoseconds);
        let tokens = output[from..].to_vec();
        Commit { tokens, accepted: accepted as u32, finished: to == self.length, rows: 0, cost: nanoseconds }
    }
}

impl Host for Simulation {
    fn settings(&self) -> Settings {
        self.settings.clone()
    }

    fn memory(&self) -> String {
        self.memory.borrow().clone()
    }

    fn remember(&self, note: &str) {
        assert!(note.len() <= 16_384);
        *self.memory.borrow_mut() = note.to_owned();
    }

    fn remaining(&self) -> u32 {
        (self.length - self.output.borrow().len()) as u32
    }

    fn target(&self) -> TargetFacts {
        let (time_per_token, time_per_row) = (self.target_token, self.target_token / 50);
        TargetFacts { time_per_token, time_per_row, round_trip: 0 }
    }

    fn drafters(&self) -> Vec<DrafterFacts> {
        let facts = |index| DrafterFacts {
            name: format!("drafter {index}"),
            unavailable: self.absent.contains(&(index as u32)),
            shares_processor: false,
            startup: 0,
            time_per_token: 0,
            round_trip: 0,
        };
        (0..self.drafters.len()).map(facts).collect()
    }

    fn race(&self, drafters: &[u32], max: u32, limits: RaceLimits) -> Result<Vec<RaceDraft>, Error> {
        self.live()?;
        if let Some(note) = &self.meanwhile {
            self.remember(note);
        }
        let (start, at) = (self.clock.get(), self.output.borrow().len());
        let mut busy = self.busy.borrow_mut();
        assert!(drafters.iter().all(|drafter| !self.absent.contains(drafter)), "nobody is there to be asked");
        let free = |drafter: &u32| !self.dead.contains(drafter) && busy[*drafter as usize] <= start;
        let mut asked: Vec<u32> = drafters.iter().copied().filter(free).collect();
        asked.sort_by_key(|drafter| self.drafters[*drafter as usize].1);
        let quorum = (limits.quorum as usize).min(asked.len());
        let (mut over, mut last) = (start + limits.timeout, start);
        let mut answers = Vec::new();
        for drafter in asked.iter().copied() {
            let (says, nanoseconds) = self.drafters[drafter as usize];
            let until = start + nanoseconds;
            if until > over {
                last = over;
                busy[drafter as usize] = until;
                continue;
            }
            let proposal = |at| Proposal { token: says(at), probability: 0.9 };
            let proposals = (at..at + max as usize).map(proposal).collect();
            answers.push(RaceDraft { drafter, draft: Draft { proposals, elapsed: nanoseconds } });
            last = until;
            if answers.len() == quorum {
                over = over.min(until + limits.grace_period);
            }
        }
        self.clock.set(last);
        Ok(answers)
    }

    fn verify(&self, paths: &[Vec<TokenId>]) -> Result<Commit, Error> {
        self.live()?;
        let rows: usize = paths.iter().map(Vec::len).sum();
        assert!(rows <= 64 && paths.iter().all(|path| !path.is_empty()));
        add(&self.passes, 1);
        let at = self.output.borrow().len();
        let right = |path: &Vec<TokenId>| {
            path.iter().zip(at..).take_while(|(token, at)| **token == TRUTH(*at)).count()
        };
        let accepted = paths.iter().map(right).max().unwrap_or(0);
        Ok(self.commit(accepted + 1, accepted, self.target_token + rows as u64 * self.target().time_per_row))
    }

    fn decode(&self, max: u32) -> Result<Commit, Error> {
        self.live()?;
        assert!(max > 0);
        add(&self.decodes, 1);
        let tokens = max.min(self.remaining());
        Ok(self.commit(tokens as usize, 0, u64::from(tokens) * self.target_token))
    }

    fn accept(&self, tokens: &[TokenId], audit: bool) -> Result<Accepted, Error> {
        self.live()?;
        assert!((1..=256).contains(&tokens.len()));
        add(&self.accepts, 1);
        let count = tokens.len().min(self.remaining() as usize).min(self.most_accepted);
        let mut output = self.output.borrow_mut();
        if audit {
            let agree =
                tokens[..count].iter().zip(output.len()..).filter(|(token, at)| **token == TRUTH(*at));
            let (audited, agreed) = self.audits.get();
            self.audits.set((audited + count as u64, agreed + agree.count() as u64));
        }
        output.extend(&tokens[..count]);
        add(&self.unverified, count);
        Ok(Accepted { count: count as u32, finished: output.len() == self.length })
    }

    fn audited(&self) -> AuditStats {
        let (audited, agreed) = self.audits.get();
        AuditStats { audited, agreed }
    }

    fn at_work(&self, rule: &str, why: &str) {
        assert!(rule.len() <= 64);
        self.said.borrow_mut().push((rule.to_owned(), why.to_owned()));
    }

    fn ask(&self, ballots: &[Ballot], drafters: u32) -> Option<Ruling> {
        assert!(!ballots.is_empty() && drafters as usize == self.drafters.len());
        assert!(ballots.iter().all(|ballot| !ballot.proposals.is_empty()));
        self.policy.map(|policy| policy(ballots))
    }

    fn now(&self) -> u64 {
        self.clock.get()
    }
}
