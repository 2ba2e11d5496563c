//! Rounds in which all drafters propose at once.

use tightwad_plugin_sdk::{Commit, Error, Job, RaceLimits, now};

use crate::controller::Controller;
use crate::tree::{Ballot, MOST, PATHS, Tree};

/// The drafters of a request, asked all at once.
pub(crate) struct Race<'a> {
    pub(crate) job: &'a Job,
    pub(crate) controller: &'a mut Controller,
    pub(crate) members: &'a [usize],
}

impl Race<'_> {
    /// A race, and the verification of what is worth it; `None` when nothing is.
    pub(crate) fn run(self, team: usize, max: u32, min_probability: f32) -> Result<Option<bool>, Error> {
        let (ballots, nanoseconds) = self.ballots(max, min_probability)?;
        let longest = ballots.iter().map(|ballot| ballot.tokens.len()).max().unwrap_or(0);
        self.controller.drafted(team, longest, nanoseconds, false);
        self.controller.raced(self.members);
        let tree = self.controller.tree(&ballots, self.job.remaining());
        if tree.paths.is_empty() {
            return Ok(None);
        }
        let commit = self.verify(&tree)?;
        let accepted = commit.accepted as usize;
        let rows = if commit.rows > 0 { commit.rows as usize } else { tree.rows };
        self.controller.grown(&ballots, &tree, &commit.tokens, accepted, (rows, commit.cost));
        Ok(Some(commit.finished))
    }

    /// What all drafters say, and how long it took.
    fn ballots(&self, max: u32, min_probability: f32) -> Result<(Vec<Ballot>, u64), Error> {
        let members: Vec<u32> = self.members.iter().map(|index| *index as u32).collect();
        let limits = RaceLimits {
            quorum: members.len() as u32,
            grace_period: 0,
            timeout: self.controller.race_limit(self.members, max),
        };
        let start = now();
        let answers = self.job.race(&members, max, min_probability, limits)?;
        // Late drafters are waited for, too, and those that are not there are not.
        let took = now().saturating_sub(start);
        let ballots = answers.into_iter().filter(|answer| !answer.draft.proposals.is_empty()).map(|answer| {
            let tokens = answer.draft.proposals.iter().map(|proposal| proposal.token).collect();
            let probabilities = answer.draft.proposals.iter().map(|proposal| proposal.probability).collect();
            self.controller.ballot(answer.drafter as usize, tokens, probabilities)
        });
        Ok((ballots.collect(), took))
    }

    fn verify(&self, tree: &Tree) -> Result<Commit, Error> {
        match tree.paths.as_slice() {
            [path] => self.job.verify(path),
            paths => self.job.verify_tree(paths),
        }
    }

    /// A round with drafts of a fixed length, all of which are verified; true when generation ended. `as_tree`:
    /// by one call, else by one call for each branch.
    pub(crate) fn fixed(self, length: u32, as_tree: bool) -> Result<bool, Error> {
        let (ballots, _) = self.ballots(length, 0.0)?;
        let mut paths: Vec<Vec<u32>> = ballots.into_iter().map(|ballot| ballot.tokens).collect();
        paths.truncate(PATHS.min(MOST / length.max(1) as usize));
        if as_tree {
            return self.job.verify_tree(&paths).map(|commit| commit.finished);
        }
        // A call a branch: those that go on with what was committed are tried behind it.
        let first = if paths.is_empty() { Vec::new() } else { paths.remove(0) };
        let mut commit = self.job.verify(&first)?;
        while !commit.finished {
            let own = &commit.tokens;
            let on = |path: &Vec<u32>| path.len() > own.len() && path.starts_with(own);
            let mut rest: Vec<Vec<u32>> =
                paths.iter().filter(|path| on(path)).map(|path| path[own.len()..].to_vec()).collect();
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
