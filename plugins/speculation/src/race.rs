//! Rounds in which all drafters propose at the same time.

use tightwad_plugin_sdk::{Commit, Error, Job, RaceLimits, now};

use crate::controller::Controller;
use crate::tree::{Ballot, MAX_PATHS, MAX_TREE_TOKENS, Tree};

/// A race of a request's drafters.
pub(crate) struct Race<'a> {
    pub(crate) job: &'a Job,
    pub(crate) controller: &'a mut Controller,
    pub(crate) members: &'a [usize],
}

impl Race<'_> {
    /// Runs the race and verifies the proposals that are worth it. `None`: there are none.
    pub(crate) fn run(
        self,
        ensemble: usize,
        max_tokens: u32,
        min_probability: f32,
    ) -> Result<Option<bool>, Error> {
        let (ballots, nanoseconds) = self.ballots(max_tokens, min_probability)?;
        let longest = ballots.iter().map(|ballot| ballot.tokens.len()).max().unwrap_or(0);
        self.controller.record_draft(ensemble, longest, nanoseconds, false);
        self.controller.record_race(self.members);
        let tree = self.controller.tree(&ballots, self.job.remaining());
        if tree.paths.is_empty() {
            return Ok(None);
        }
        let commit = self.verify(&tree)?;
        let accepted = commit.accepted as usize;
        let rows = if commit.rows > 0 { commit.rows as usize } else { tree.rows };
        self.controller.record_tree(&ballots, &tree, &commit.tokens, accepted, (rows, commit.cost));
        Ok(Some(commit.finished))
    }

    /// Returns the ballots of all drafters, and the time of the race in nanoseconds.
    fn ballots(&self, max_tokens: u32, min_probability: f32) -> Result<(Vec<Ballot>, u64), Error> {
        let members: Vec<u32> = self.members.iter().map(|index| *index as u32).collect();
        let limits = RaceLimits {
            quorum: members.len() as u32,
            grace_period: 0,
            timeout: self.controller.race_timeout(self.members, max_tokens),
        };
        let start = now();
        let drafts = self.job.race(&members, max_tokens, min_probability, limits)?;
        // The race includes the wait for late drafters, and leaves out unavailable ones.
        let elapsed = now().saturating_sub(start);
        let ballots = drafts.into_iter().filter(|race| !race.draft.proposals.is_empty()).map(|race| {
            let tokens = race.draft.proposals.iter().map(|proposal| proposal.token).collect();
            let probabilities = race.draft.proposals.iter().map(|proposal| proposal.probability).collect();
            self.controller.ballot(race.drafter as usize, tokens, probabilities)
        });
        Ok((ballots.collect(), elapsed))
    }

    fn verify(&self, tree: &Tree) -> Result<Commit, Error> {
        match tree.paths.as_slice() {
            [path] => self.job.verify(path),
            paths => self.job.verify_tree(paths),
        }
    }

    /// Runs a round with drafts of a fixed length, and verifies all of them. `as_tree`: in one call; otherwise one
    /// call per branch. Returns true if generation ended.
    pub(crate) fn run_fixed(self, length: u32, as_tree: bool) -> Result<bool, Error> {
        let (ballots, _) = self.ballots(length, 0.0)?;
        let mut paths: Vec<Vec<u32>> = ballots.into_iter().map(|ballot| ballot.tokens).collect();
        paths.truncate(MAX_PATHS.min(MAX_TREE_TOKENS / length.max(1) as usize));
        if as_tree {
            return self.job.verify_tree(&paths).map(|commit| commit.finished);
        }
        // One call per branch: branches that continue the committed tokens are tried after them.
        let first = if paths.is_empty() { Vec::new() } else { paths.remove(0) };
        let mut commit = self.job.verify(&first)?;
        while !commit.finished {
            let own = &commit.tokens;
            let continues = |path: &Vec<u32>| path.len() > own.len() && path.starts_with(own);
            let mut rest: Vec<Vec<u32>> =
                paths.iter().filter(|path| continues(path)).map(|path| path[own.len()..].to_vec()).collect();
            if rest.is_empty() {
                return Ok(false);
            }
            let next = rest.remove(0);
            paths = rest;
            commit = self.job.verify(&next)?;
        }
        Ok(true)
    }
}
