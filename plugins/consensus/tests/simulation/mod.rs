//! A host with a clock of its own. Races end as `wit/decoding.wit` specifies, and audits end at once.

use std::cell::{Cell, RefCell};

use tightwad_consensus::host::Host;
use tightwad_plugin_sdk::{
    Accepted, AuditStats, Ballot, Commit, Draft, DrafterFacts, Error, Proposal, RaceDraft, RaceLimits,
    Ruling, Settings, TargetFacts, TokenId,
};

/// The target's token at a position of the output.
pub fn target_token_at(at: usize) -> TokenId {
    10 * (at as u32 % 97)
}

/// A drafter's token at a position of the output.
pub type ProposedToken = fn(usize) -> TokenId;

/// A policy plugin.
pub type Policy = fn(&[Ballot]) -> Ruling;

/// Requests one after the other, with the same saved state and audits.
pub struct Simulation {
    drafters: Vec<(ProposedToken, u64)>,
    settings: Settings,
    pub saved_state: RefCell<String>,
    /// The state that another request saves while this one runs.
    pub concurrent_state: Option<String>,
    pub length: usize,
    pub target_time_per_token: u64,
    pub dead: Vec<u32>,
    /// Drafters that could not be opened.
    pub unavailable: Vec<u32>,
    pub policy: Option<Policy>,
    /// Tokens of an acceptance that the request allows, at most.
    pub max_accepted: usize,
    pub clock: Cell<u64>,
    pub output: RefCell<Vec<TokenId>>,
    /// The time until which each drafter is busy.
    busy: RefCell<Vec<u64>>,
    pub passes: Cell<usize>,
    pub decodes: Cell<usize>,
    pub accepts: Cell<usize>,
    pub unverified: Cell<usize>,
    audits: Cell<(u64, u64)>,
    pub reported_rules: RefCell<Vec<(String, String)>>,
}

fn add<T: Copy + std::ops::Add<Output = T>>(cell: &Cell<T>, more: T) {
    cell.set(cell.get() + more);
}

impl Simulation {
    /// Each drafter replies after its number of nanoseconds.
    pub fn new(rule: &str, drafters: &[(ProposedToken, u64)]) -> Self {
        Self {
            drafters: drafters.to_vec(),
            settings: Settings::default().with("rule", rule),
            saved_state: RefCell::default(),
            concurrent_state: None,
            length: 300,
            target_time_per_token: 20_000_000,
            dead: Vec::new(),
            unavailable: Vec::new(),
            policy: None,
            max_accepted: usize::MAX,
            clock: Cell::new(1),
            output: RefCell::default(),
            busy: RefCell::new(vec![0; drafters.len()]),
            passes: Cell::default(),
            decodes: Cell::default(),
            accepts: Cell::default(),
            unverified: Cell::default(),
            audits: Cell::default(),
            reported_rules: RefCell::default(),
        }
    }

    pub fn set(&mut self, key: &str, value: f64) {
        self.settings = std::mem::take(&mut self.settings).with(key, value);
    }

    /// Begins the next request.
    pub fn next_request(&mut self) {
        self.output.take();
        self.reported_rules.take();
        self.busy.borrow_mut().fill(0);
        for cell in [&self.passes, &self.decodes, &self.accepts, &self.unverified] {
            cell.set(0);
        }
        self.clock.set(1);
    }

    fn live(&self) -> Result<(), Error> {
        if self.remaining() == 0 { Err(Error::Finished) } else { Ok(()) }
    }

    /// Commits the target's next `tokens` tokens.
    fn commit(&self, tokens: usize, accepted: usize, nanoseconds: u64) -> Commit {
        let mut output = self.output.borrow_mut();
        let from = output.len();
        let to = (from + tokens).min(self.length);
        output.extend((from..to).map(target_token_at));
        add(&self.clock, nanoseconds);
        let tokens = output[from..].to_vec();
        Commit { tokens, accepted: accepted as u32, finished: to == self.length, rows: 0, cost: nanoseconds }
    }
}

impl Host for Simulation {
    fn settings(&self) -> Settings {
        self.settings.clone()
    }

    fn load_state(&self) -> String {
        self.saved_state.borrow().clone()
    }

    fn save_state(&self, state: &str) {
        assert!(state.len() <= 16_384);
        *self.saved_state.borrow_mut() = state.to_owned();
    }

    fn remaining(&self) -> u32 {
        (self.length - self.output.borrow().len()) as u32
    }

    fn target(&self) -> TargetFacts {
        let (time_per_token, time_per_row) = (self.target_time_per_token, self.target_time_per_token / 50);
        TargetFacts { time_per_token, time_per_row, round_trip: 0 }
    }

    fn drafters(&self) -> Vec<DrafterFacts> {
        let facts = |index| DrafterFacts {
            name: format!("drafter {index}"),
            unavailable: self.unavailable.contains(&(index as u32)),
            shares_processor: false,
            startup: 0,
            time_per_token: 0,
            round_trip: 0,
        };
        (0..self.drafters.len()).map(facts).collect()
    }

    fn race(&self, drafters: &[u32], max: u32, limits: RaceLimits) -> Result<Vec<RaceDraft>, Error> {
        self.live()?;
        if let Some(state) = &self.concurrent_state {
            self.save_state(state);
        }
        let (start, at) = (self.clock.get(), self.output.borrow().len());
        let mut busy = self.busy.borrow_mut();
        assert!(drafters.iter().all(|drafter| !self.unavailable.contains(drafter)), "it cannot be asked");
        let free = |drafter: &u32| !self.dead.contains(drafter) && busy[*drafter as usize] <= start;
        let mut asked: Vec<u32> = drafters.iter().copied().filter(free).collect();
        asked.sort_by_key(|drafter| self.drafters[*drafter as usize].1);
        let quorum = (limits.quorum as usize).min(asked.len());
        let (mut deadline, mut end) = (start + limits.timeout, start);
        let mut drafts = Vec::new();
        for drafter in asked.iter().copied() {
            let (token_at, nanoseconds) = self.drafters[drafter as usize];
            let until = start + nanoseconds;
            if until > deadline {
                end = deadline;
                busy[drafter as usize] = until;
                continue;
            }
            let proposal = |at| Proposal { token: token_at(at), probability: 0.9 };
            let proposals = (at..at + max as usize).map(proposal).collect();
            drafts.push(RaceDraft { drafter, draft: Draft { proposals, elapsed: nanoseconds } });
            end = until;
            if drafts.len() == quorum {
                deadline = deadline.min(until + limits.grace_period);
            }
        }
        self.clock.set(end);
        Ok(drafts)
    }

    fn verify(&self, paths: &[Vec<TokenId>]) -> Result<Commit, Error> {
        self.live()?;
        let rows: usize = paths.iter().map(Vec::len).sum();
        assert!(rows <= 64 && paths.iter().all(|path| !path.is_empty()));
        add(&self.passes, 1);
        let at = self.output.borrow().len();
        let right = |path: &Vec<TokenId>| {
            path.iter().zip(at..).take_while(|(token, at)| **token == target_token_at(*at)).count()
        };
        let accepted = paths.iter().map(right).max().unwrap_or(0);
        Ok(self.commit(
            accepted + 1,
            accepted,
            self.target_time_per_token + rows as u64 * self.target().time_per_row,
        ))
    }

    fn decode(&self, max: u32) -> Result<Commit, Error> {
        self.live()?;
        assert!(max > 0);
        add(&self.decodes, 1);
        let tokens = max.min(self.remaining());
        Ok(self.commit(tokens as usize, 0, u64::from(tokens) * self.target_time_per_token))
    }

    fn accept_unverified(&self, tokens: &[TokenId], audit: bool) -> Result<Accepted, Error> {
        self.live()?;
        assert!((1..=256).contains(&tokens.len()));
        add(&self.accepts, 1);
        let count = tokens.len().min(self.remaining() as usize).min(self.max_accepted);
        let mut output = self.output.borrow_mut();
        if audit {
            let agree = tokens[..count]
                .iter()
                .zip(output.len()..)
                .filter(|(token, at)| **token == target_token_at(*at));
            let (audited, agreed) = self.audits.get();
            self.audits.set((audited + count as u64, agreed + agree.count() as u64));
        }
        output.extend(&tokens[..count]);
        add(&self.unverified, count);
        Ok(Accepted { count: count as u32, finished: output.len() == self.length })
    }

    fn audit_stats(&self) -> AuditStats {
        let (audited, agreed) = self.audits.get();
        AuditStats { audited, agreed }
    }

    fn report_rule(&self, rule: &str, reason: &str) {
        assert!(rule.len() <= 64);
        self.reported_rules.borrow_mut().push((rule.to_owned(), reason.to_owned()));
    }

    fn ask_policy(&self, ballots: &[Ballot], drafters: u32) -> Option<Ruling> {
        assert!(!ballots.is_empty() && drafters as usize == self.drafters.len());
        assert!(ballots.iter().all(|ballot| !ballot.proposals.is_empty()));
        self.policy.map(|policy| policy(ballots))
    }

    fn now(&self) -> u64 {
        self.clock.get()
    }
}
