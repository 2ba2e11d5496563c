//! Drives one request: asks, verifies, measures.

use tightwad_plugin_sdk::{Commit, Draft, DrafterFacts, Error, Job, Proposal, Settings};

use crate::controller::{Controller, Facts, Plan};
use crate::cost::Verification;
use crate::memory;
use crate::race::Race;

/// Most tokens that are proposed while the target decodes.
const SHADOW: u32 = 16;

/// A draft that was made while the target verified the one before it.
struct Ahead {
    drafter: usize,
    proposals: Vec<Proposal>,
}

/// The state of one request.
pub struct Drive<'a> {
    job: &'a Job,
    controller: Controller,
    overlaps: Vec<bool>,
    ahead: Option<Ahead>,
    /// Always drafts that many tokens; 0: one call a token. For comparisons.
    fixed: Option<u32>,
    trees: Trees,
    /// The drafters that are asked all at once.
    members: Vec<usize>,
}

/// When several drafters' continuations are verified together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trees {
    /// Where the controller expects most of it.
    Auto,
    Never,
    /// In every round. For comparisons.
    Always,
    /// In every round, each branch by a call of its own. For comparisons.
    Calls,
}

impl Trees {
    fn read(settings: &Settings) -> Self {
        match settings.text("tree") {
            Some("never") => Self::Never,
            Some("always") => Self::Always,
            Some("calls") => Self::Calls,
            _ => Self::Auto,
        }
    }
}

impl<'a> Drive<'a> {
    /// Reads what `job` is made of.
    #[must_use]
    pub fn new(job: &'a Job) -> Self {
        let settings = Settings::from(job.settings());
        let max_draft = settings.count("max_draft_tokens").unwrap_or(32).min(64);
        let overlap = settings.flag("overlap").unwrap_or(true);
        let known = |facts: &DrafterFacts| Facts {
            overlaps: overlap && !facts.shares_processor,
            startup: facts.startup,
            token: facts.time_per_token,
            round_trip: facts.round_trip,
            absent: facts.unavailable,
        };
        let facts: Vec<Facts> = job.drafters().iter().map(known).collect();
        let target = job.target();
        let verification =
            Verification::expecting(target.time_per_token, target.time_per_row, target.round_trip);
        let trees = Trees::read(&settings);
        let mut controller = Controller::new(verification, &facts, max_draft);
        if trees != Trees::Never {
            let shared: Vec<bool> = job.drafters().iter().map(|facts| facts.shares_processor).collect();
            controller = controller.with_team(&shared);
        }
        // Who costs nothing has a say in every race.
        let members = (0..facts.len()).collect();
        memory::read(&String::from_utf8(job.load_state()).unwrap_or_default(), &mut controller);
        let overlaps = facts.iter().map(|facts| facts.overlaps).collect();
        let fixed = settings.count("fixed_draft");
        Self { job, controller, overlaps, ahead: None, fixed, trees, members }
    }

    /// Goes on until the target is finished.
    ///
    /// # Errors
    ///
    /// What the host answered.
    pub fn run(&mut self) -> Result<(), Error> {
        while !self.round()? {}
        self.job.save_state(memory::write(&self.controller).as_bytes());
        Ok(())
    }

    /// One round; true when generation ended.
    fn round(&mut self) -> Result<bool, Error> {
        if let Some(length) = self.fixed {
            return self.fixed_round(length);
        }
        if let Some(ahead) = self.ahead.take()
            && let Some(finished) = self.try_draft(ahead.drafter, &ahead.proposals)?
        {
            return Ok(finished);
        }
        let mut asked = vec![false; self.overlaps.len() + usize::from(self.controller.team().is_some())];
        loop {
            match self.controller.plan(&asked, self.job.remaining()) {
                Plan::Decode(tokens) => return self.decode(tokens),
                Plan::Draft { drafter, max, min_probability } if Some(drafter) == self.controller.team() => {
                    // They have all been asked then.
                    asked.fill(true);
                    if let Some(finished) = self.race().run(drafter, max, min_probability)? {
                        return Ok(finished);
                    }
                }
                Plan::Draft { drafter, max, min_probability } => {
                    asked[drafter] = true;
                    let draft = self.propose(drafter, max, min_probability)?;
                    // Nothing in no time: it was not asked.
                    if draft.elapsed > 0 {
                        self.controller.drafted(drafter, draft.proposals.len(), draft.elapsed, false);
                    }
                    if let Some(finished) = self.try_draft(drafter, &draft.proposals)? {
                        return Ok(finished);
                    }
                }
            }
        }
    }

    /// A round whose drafts have always this length, or none for 0; true when generation ended.
    fn fixed_round(&mut self, length: u32) -> Result<bool, Error> {
        if length == 0 {
            return self.job.verify(&[]).map(|commit| commit.finished);
        }
        let length = length.clamp(1, 64);
        if matches!(self.trees, Trees::Always | Trees::Calls) {
            let as_tree = self.trees == Trees::Always;
            return self.race().fixed(length, as_tree);
        }
        let draft = self.propose(0, length, 0.0)?;
        let tokens: Vec<u32> = draft.proposals.iter().map(|proposal| proposal.token).collect();
        self.job.verify(&tokens).map(|commit| commit.finished)
    }

    fn race(&mut self) -> Race<'_> {
        Race { job: self.job, controller: &mut self.controller, members: &self.members }
    }

    /// Asks one drafter. One that is away, or broke, has nothing to say: that is no reason to end.
    fn propose(&mut self, drafter: usize, max: u32, min_probability: f32) -> Result<Draft, Error> {
        let draft = self.job.propose(drafter as u32, &[], max, min_probability);
        self.heard(drafter, draft)
    }

    /// What an answer means; only the end of the job is an error.
    fn heard(&mut self, drafter: usize, draft: Result<Draft, Error>) -> Result<Draft, Error> {
        match draft {
            Ok(draft) => return Ok(draft),
            Err(Error::Finished) => return Err(Error::Finished),
            Err(Error::Refused(_)) => {}
            Err(Error::Backend(_) | Error::Other(_)) => self.controller.lost(drafter),
        }
        Ok(Draft { proposals: Vec::new(), elapsed: 0 })
    }

    /// Decodes plainly; drafters that cost nothing propose meanwhile, to see how they would have done.
    fn decode(&mut self, tokens: u32) -> Result<bool, Error> {
        let most = tokens.min(SHADOW);
        let ask =
            |drafter: usize| Some((drafter, self.job.begin_propose(drafter as u32, &[], most, 0.0).ok()?));
        let shadows: Vec<_> = self.controller.shadows(tokens).into_iter().filter_map(ask).collect();
        let commit = if tokens <= 1 { self.job.verify(&[])? } else { self.job.decode(tokens)? };
        self.controller.decoded(commit.tokens.len(), commit.cost);
        for (drafter, pending) in shadows {
            let Ok(Draft { proposals, elapsed }) = pending.wait() else { continue };
            let own: Vec<f32> = proposals.iter().map(|proposal| proposal.probability).collect();
            let both = proposals.iter().zip(&commit.tokens);
            let agreed = both.take_while(|(proposal, token)| proposal.token == **token).count();
            // What was not decoded says nothing.
            let compared = own.len().min(commit.tokens.len());
            self.controller.shadowed(drafter, &own[..compared], agreed, elapsed);
            self.controller.waited(elapsed.saturating_sub(commit.cost));
        }
        Ok(commit.finished)
    }

    /// Verifies what is worth it; `None` when nothing is.
    fn try_draft(&mut self, drafter: usize, proposals: &[Proposal]) -> Result<Option<bool>, Error> {
        let probabilities: Vec<f32> = proposals.iter().map(|proposal| proposal.probability).collect();
        let length = self.controller.cut(drafter, &probabilities, self.job.remaining());
        if length == 0 {
            if let Some(first) = probabilities.first() {
                self.controller.refused(drafter, *first);
            }
            return Ok(None);
        }
        let tokens: Vec<u32> = proposals[..length].iter().map(|proposal| proposal.token).collect();
        let commit = if self.overlaps[drafter] {
            self.verify_and_draft(drafter, &tokens)?
        } else {
            self.job.verify(&tokens)?
        };
        let accepted = commit.accepted as usize;
        self.controller.verified(drafter, &probabilities[..length], accepted, commit.cost);
        Ok(Some(commit.finished))
    }

    /// Verifies, and meanwhile lets the drafter go on as if everything were accepted.
    fn verify_and_draft(&mut self, drafter: usize, tokens: &[u32]) -> Result<Commit, Error> {
        let verification = self.job.begin_verify(tokens)?;
        let max = tokens.len() as u32 + 1;
        let drafting = self.job.begin_propose(drafter as u32, tokens, max, 0.0);
        let commit = verification.wait()?;
        if commit.finished || commit.accepted as usize != tokens.len() {
            return Ok(commit);
        }
        let drafting = drafting.and_then(|drafting| drafting.wait());
        let Draft { mut proposals, elapsed } = self.heard(drafter, drafting)?;
        self.controller.drafted(drafter, proposals.len(), elapsed, true);
        self.controller.waited(elapsed.saturating_sub(commit.cost));
        let bonus = commit.tokens.last().copied();
        if proposals.len() > 1 && proposals.first().map(|proposal| proposal.token) == bonus {
            proposals.remove(0);
            self.ahead = Some(Ahead { drafter, proposals });
        }
        Ok(commit)
    }
}
