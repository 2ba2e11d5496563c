//! Drives one request: asks drafters, verifies drafts, measures times.

use tightwad_plugin_sdk::{Commit, Draft, DrafterFacts, Error, Job, Proposal, Settings};

use crate::controller::{Controller, Facts, Plan};
use crate::cost::PassCost;
use crate::race::Race;
use crate::state;

/// Tokens that drafters propose at most while the target decodes.
const MAX_SHADOW_TOKENS: u32 = 16;

/// A draft that a drafter made while the target verified the draft before it.
struct DraftAhead {
    drafter: usize,
    proposals: Vec<Proposal>,
}

/// The state of one request.
pub struct Driver<'a> {
    job: &'a Job,
    controller: Controller,
    overlaps: Vec<bool>,
    ahead: Option<DraftAhead>,
    /// The length of every draft; 0: one call per token. For benchmarks.
    fixed_length: Option<u32>,
    tree_mode: TreeMode,
    /// The drafters of a race.
    members: Vec<usize>,
}

/// When continuations of several drafters are verified together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TreeMode {
    /// Where the controller expects the best rate.
    Auto,
    Never,
    /// In every round. For benchmarks.
    Always,
    /// In every round, with one call per branch. For benchmarks.
    Calls,
}

impl TreeMode {
    fn from_settings(settings: &Settings) -> Self {
        match settings.text("tree") {
            Some("never") => Self::Never,
            Some("always") => Self::Always,
            Some("calls") => Self::Calls,
            _ => Self::Auto,
        }
    }
}

impl<'a> Driver<'a> {
    /// Reads the settings and facts of `job`, and the saved state.
    #[must_use]
    pub fn new(job: &'a Job) -> Self {
        let settings = Settings::from(job.settings());
        let max_draft_tokens = settings.count("max_draft_tokens").unwrap_or(32).min(64);
        let overlap = settings.flag("overlap").unwrap_or(true);
        let facts = |facts: &DrafterFacts| Facts {
            overlaps: overlap && !facts.shares_processor,
            startup: facts.startup,
            time_per_token: facts.time_per_token,
            round_trip: facts.round_trip,
            unavailable: facts.unavailable,
        };
        let facts: Vec<Facts> = job.drafters().iter().map(facts).collect();
        let target = job.target();
        let pass_cost = PassCost::expecting(target.time_per_token, target.time_per_row, target.round_trip);
        let tree_mode = TreeMode::from_settings(&settings);
        let mut controller = Controller::new(pass_cost, &facts, max_draft_tokens);
        if tree_mode != TreeMode::Never {
            let shared: Vec<bool> = job.drafters().iter().map(|facts| facts.shares_processor).collect();
            controller = controller.with_ensemble(&shared);
        }
        // Free drafters take part in every race.
        let members = (0..facts.len()).collect();
        state::restore(&String::from_utf8(job.load_state()).unwrap_or_default(), &mut controller);
        let overlaps = facts.iter().map(|facts| facts.overlaps).collect();
        let fixed_length = settings.count("fixed_draft");
        Self { job, controller, overlaps, ahead: None, fixed_length, tree_mode, members }
    }

    /// Runs rounds until generation ends.
    ///
    /// # Errors
    ///
    /// The host's errors.
    pub fn run(&mut self) -> Result<(), Error> {
        while !self.round()? {}
        self.job.save_state(state::save(&self.controller).as_bytes());
        Ok(())
    }

    /// Runs one round. Returns true if generation ended.
    fn round(&mut self) -> Result<bool, Error> {
        if let Some(length) = self.fixed_length {
            return self.fixed_round(length);
        }
        if let Some(ahead) = self.ahead.take()
            && let Some(finished) = self.try_draft(ahead.drafter, &ahead.proposals)?
        {
            return Ok(finished);
        }
        let mut asked = vec![false; self.overlaps.len() + usize::from(self.controller.ensemble().is_some())];
        loop {
            match self.controller.plan(&asked, self.job.remaining()) {
                Plan::Decode(tokens) => return self.decode(tokens),
                Plan::Draft { drafter, max_tokens, min_probability }
                    if Some(drafter) == self.controller.ensemble() =>
                {
                    // The race asks every drafter.
                    asked.fill(true);
                    if let Some(finished) = self.race().run(drafter, max_tokens, min_probability)? {
                        return Ok(finished);
                    }
                }
                Plan::Draft { drafter, max_tokens, min_probability } => {
                    asked[drafter] = true;
                    let draft = self.propose(drafter, max_tokens, min_probability)?;
                    // No elapsed time: the host did not ask the drafter.
                    if draft.elapsed > 0 {
                        self.controller.record_draft(drafter, draft.proposals.len(), draft.elapsed, false);
                    }
                    if let Some(finished) = self.try_draft(drafter, &draft.proposals)? {
                        return Ok(finished);
                    }
                }
            }
        }
    }

    /// Runs a round with drafts of this length; 0: no drafts. Returns true if generation ended.
    fn fixed_round(&mut self, length: u32) -> Result<bool, Error> {
        if length == 0 {
            return self.job.verify(&[]).map(|commit| commit.finished);
        }
        let length = length.clamp(1, 64);
        if matches!(self.tree_mode, TreeMode::Always | TreeMode::Calls) {
            let as_tree = self.tree_mode == TreeMode::Always;
            return self.race().run_fixed(length, as_tree);
        }
        let draft = self.propose(0, length, 0.0)?;
        let tokens: Vec<u32> = draft.proposals.iter().map(|proposal| proposal.token).collect();
        self.job.verify(&tokens).map(|commit| commit.finished)
    }

    fn race(&mut self) -> Race<'_> {
        Race { job: self.job, controller: &mut self.controller, members: &self.members }
    }

    /// Asks one drafter. A busy or failed drafter gives an empty draft.
    fn propose(&mut self, drafter: usize, max_tokens: u32, min_probability: f32) -> Result<Draft, Error> {
        let draft = self.job.propose(drafter as u32, &[], max_tokens, min_probability);
        self.draft_or_empty(drafter, draft)
    }

    /// Replaces an error by an empty draft. Only the end of the job stays an error.
    fn draft_or_empty(&mut self, drafter: usize, draft: Result<Draft, Error>) -> Result<Draft, Error> {
        match draft {
            Ok(draft) => return Ok(draft),
            Err(Error::Finished) => return Err(Error::Finished),
            Err(Error::Refused(_)) => {}
            Err(Error::Backend(_) | Error::Other(_)) => self.controller.record_failure(drafter),
        }
        Ok(Draft { proposals: Vec::new(), elapsed: 0 })
    }

    /// Decodes without drafts. Meanwhile the shadow drafters propose, so that their acceptance becomes known.
    fn decode(&mut self, tokens: u32) -> Result<bool, Error> {
        let max_tokens = tokens.min(MAX_SHADOW_TOKENS);
        let ask = |drafter: usize| {
            Some((drafter, self.job.begin_propose(drafter as u32, &[], max_tokens, 0.0).ok()?))
        };
        let shadows: Vec<_> = self.controller.shadow_drafters(tokens).into_iter().filter_map(ask).collect();
        let commit = if tokens <= 1 { self.job.verify(&[])? } else { self.job.decode(tokens)? };
        self.controller.record_decode(commit.tokens.len(), commit.cost);
        for (drafter, pending) in shadows {
            let Ok(Draft { proposals, elapsed }) = pending.wait() else { continue };
            let own: Vec<f32> = proposals.iter().map(|proposal| proposal.probability).collect();
            let both = proposals.iter().zip(&commit.tokens);
            let agreed = both.take_while(|(proposal, token)| proposal.token == **token).count();
            // Tokens after the decoded ones cannot be compared.
            let compared = own.len().min(commit.tokens.len());
            self.controller.record_shadow(drafter, &own[..compared], agreed, elapsed);
            self.controller.record_wait(elapsed.saturating_sub(commit.cost));
        }
        Ok(commit.finished)
    }

    /// Verifies the proposals that are worth it. `None`: there are none.
    fn try_draft(&mut self, drafter: usize, proposals: &[Proposal]) -> Result<Option<bool>, Error> {
        let probabilities: Vec<f32> = proposals.iter().map(|proposal| proposal.probability).collect();
        let length = self.controller.draft_length(drafter, &probabilities, self.job.remaining());
        if length == 0 {
            if let Some(first) = probabilities.first() {
                self.controller.record_refusal(drafter, *first);
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
        self.controller.record_verification(drafter, &probabilities[..length], accepted, commit.cost);
        Ok(Some(commit.finished))
    }

    /// Verifies the tokens. Meanwhile the drafter continues as if the target accepted all of them.
    fn verify_and_draft(&mut self, drafter: usize, tokens: &[u32]) -> Result<Commit, Error> {
        let pending_commit = self.job.begin_verify(tokens)?;
        let max_tokens = tokens.len() as u32 + 1;
        let pending_draft = self.job.begin_propose(drafter as u32, tokens, max_tokens, 0.0);
        let commit = pending_commit.wait()?;
        if commit.finished || commit.accepted as usize != tokens.len() {
            return Ok(commit);
        }
        let draft = pending_draft.and_then(|pending| pending.wait());
        let Draft { mut proposals, elapsed } = self.draft_or_empty(drafter, draft)?;
        self.controller.record_draft(drafter, proposals.len(), elapsed, true);
        self.controller.record_wait(elapsed.saturating_sub(commit.cost));
        let next = commit.tokens.last().copied();
        if proposals.len() > 1 && proposals.first().map(|proposal| proposal.token) == next {
            proposals.remove(0);
            self.ahead = Some(DraftAhead { drafter, proposals });
        }
        Ok(commit)
    }
}
