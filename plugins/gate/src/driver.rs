//! Drives one request: members write, the reviewer reviews, and one of three calls ends the request.
//!
//! Invariant: the driver numbers candidates as the host does, by counting all that came. After a failed call of
//! `generate` their number is unknown, so no member writes any more.

use tightwad_plugin_sdk::{Candidate, Error, Judgement, Review, ReviewMethods, TokenScore, Verdict};

use crate::fleet_order;
use crate::host::Host;
use crate::scores::mean;
use crate::settings::Settings;
use crate::verdict::{after_release, built_in, by_score, checked};

/// Tokens of the first part of an answer that is reviewed in parts. Each further part is as long as all before it.
const FIRST_PART_TOKENS: u32 = 32;

/// How the request ends.
enum Outcome {
    Approve(u32),
    Correct(u32, u32),
    Reject,
}

/// The state of one request.
pub struct Driver<'a, H> {
    host: &'a H,
    settings: Settings,
    methods: ReviewMethods,
    /// The members that were not asked to write yet, in their order.
    unasked: std::vec::IntoIter<u32>,
    /// The number of candidates so far.
    candidates: u32,
    /// The number of tokens of the last candidate that the client has.
    released_tokens: u32,
}

impl<'a, H: Host> Driver<'a, H> {
    /// Reads the settings, the fleet and the review methods of the request.
    #[must_use]
    pub fn new(host: &'a H) -> Self {
        let settings = Settings::from_script(&host.settings());
        let unasked = fleet_order::order(&host.fleet()).into_iter();
        Self { host, settings, methods: host.review_methods(), unasked, candidates: 0, released_tokens: 0 }
    }

    /// Drives the request to its end.
    ///
    /// # Errors
    ///
    /// The host's errors.
    pub fn run(&mut self) -> Result<(), Error> {
        let ended = match self.decide()? {
            Outcome::Approve(candidate) => self.host.approve(candidate),
            Outcome::Correct(candidate, kept_tokens) => self.host.correct(candidate, kept_tokens),
            Outcome::Reject => return self.host.reject(),
        };
        match ended {
            // The refused call did not end the request.
            Err(Error::Refused(reason)) => {
                self.host
                    .warn(&format!("the reviewer answers itself; the host refused the verdict: {reason}"));
                self.host.reject()
            }
            ended => ended,
        }
    }

    /// Lets members write and the reviewer review, until an answer is good enough or no member is left.
    fn decide(&mut self) -> Result<Outcome, Error> {
        if !self.methods.score && !self.methods.judge {
            self.host.warn("the reviewer answers itself; it supports no review method that the script wants");
            return Ok(Outcome::Reject);
        }
        let (mut wanted, mut retries) = (self.settings.parallel, self.settings.max_retries);
        loop {
            let new = self.generate(wanted as usize)?;
            if new.is_empty() {
                return Ok(Outcome::Reject);
            }
            match self.review(new)? {
                Outcome::Reject if retries > 0 && self.released_tokens == 0 => {
                    (wanted, retries) = (1, retries - 1)
                }
                outcome => return Ok(outcome),
            }
        }
    }

    /// Returns `wanted` new candidates with their numbers. In place of members that failed, the next ones write.
    /// There are fewer if no member is left.
    fn generate(&mut self, wanted: usize) -> Result<Vec<(u32, Candidate)>, Error> {
        let mut new = Vec::new();
        while new.len() < wanted {
            let members: Vec<u32> = self.unasked.by_ref().take(wanted - new.len()).collect();
            if members.is_empty() {
                break;
            }
            let generated = self.host.generate(&members, members.len() as u32);
            let Some(generated) = self.or_warn("the generation of answers", generated)? else {
                self.unasked = Vec::new().into_iter();
                break;
            };
            for candidate in generated {
                new.push((self.candidates, candidate));
                self.candidates += 1;
            }
        }
        Ok(new)
    }

    /// Returns the outcome that the best of these candidates allows. Candidates are judged by falling score: the
    /// first approved one is the best, and the others need no judgement.
    fn review(&mut self, candidates: Vec<(u32, Candidate)>) -> Result<Outcome, Error> {
        // With several candidates, the best one is known only at the end.
        let single = candidates.len() == 1 && self.settings.parallel == 1;
        let mut scored = Vec::with_capacity(candidates.len());
        for (number, candidate) in candidates {
            // An empty answer is rejected. A cut-off one may pass: the reviewer's answer would be cut off as well.
            if candidate.character_count == 0 {
                continue;
            }
            if let Some(scores) = self.score(number, single)? {
                scored.push((mean(&scores), number, scores));
            }
        }
        // Without scores, candidates stay in the order of their arrival.
        scored.sort_by(|one, other| other.0.total_cmp(&one.0));
        let (mut outcome, mut kept) = (Outcome::Reject, 0);
        for (_, number, scores) in scored {
            match self.verdict(number, scores)? {
                Verdict::Approve => return Ok(Outcome::Approve(number)),
                Verdict::Correct(tokens) if tokens > kept => {
                    (outcome, kept) = (Outcome::Correct(number, tokens), tokens);
                }
                Verdict::Correct(_) | Verdict::Reject => {}
            }
        }
        Ok(outcome)
    }

    /// Returns a candidate's scores; empty if none are wanted. `None`: the scores are missing, which rejects it.
    /// Good parts of a `single` candidate may go to the client during the review.
    fn score(&mut self, number: u32, single: bool) -> Result<Option<Vec<TokenScore>>, Error> {
        if !self.methods.score {
            return Ok(Some(Vec::new()));
        }
        // A policy receives complete reviews, and a judgement is about the complete answer.
        let scores_decide = !self.methods.judge && !self.methods.policy;
        let mut release = single && self.settings.stream && scores_decide;
        let mut wanted = if release { FIRST_PART_TOKENS } else { u32::MAX };
        loop {
            let Some(scores) = self.or_warn("a review by score", self.host.score(number, wanted))? else {
                return Ok(None);
            };
            if scores.len() < wanted as usize {
                return Ok(Some(scores).filter(|scores| !scores.is_empty()));
            }
            release = release && self.release_prefix(number, &scores)?;
            // A part that is not good enough can belong to a good answer: the rest is scored at once.
            wanted = if release { 2 * wanted } else { u32::MAX };
        }
    }

    /// Releases the scored part to the client if it would be approved by itself. Returns true if the client has it.
    fn release_prefix(&mut self, number: u32, scores: &[TokenScore]) -> Result<bool, Error> {
        if !matches!(by_score(scores, &self.settings), Verdict::Approve) {
            return Ok(false);
        }
        let released = self.host.release_prefix(number, scores.len() as u32);
        let is_released = self.or_warn("the release of a prefix", released)?.is_some();
        if is_released {
            self.released_tokens = scores.len() as u32;
        }
        Ok(is_released)
    }

    /// Returns the verdict on a candidate with these scores: the policy's, or the built-in one.
    fn verdict(&self, number: u32, scores: Vec<TokenScore>) -> Result<Verdict, Error> {
        let mut review = Review { scores, judgement: None };
        if self.methods.judge {
            if self.is_already_rejected(&review) {
                return Ok(Verdict::Reject);
            }
            let Some(judgement) = self.ask_reviewer(number)? else { return Ok(Verdict::Reject) };
            review.judgement = Some(judgement);
        }
        Ok(match self.ask_policy(number, &review) {
            Some(verdict) => checked(verdict, review.scores.len()),
            None if self.released_tokens > 0 => {
                after_release(&review.scores, self.released_tokens, &self.settings)
            }
            None => built_in(&review, self.methods, &self.settings),
        })
    }

    /// True if the scores reject the candidate and no judgement can change that. A policy can, so it receives the
    /// complete review.
    fn is_already_rejected(&self, review: &Review) -> bool {
        let rejected =
            self.methods.score && matches!(by_score(&review.scores, &self.settings), Verdict::Reject);
        rejected && !self.methods.policy
    }

    /// The policy's verdict. `None`: there is no policy.
    fn ask_policy(&self, number: u32, review: &Review) -> Option<Verdict> {
        if self.methods.policy { self.host.ask_policy(number, review) } else { None }
    }

    /// The reviewer's judgement. `None`: the reviewer failed.
    fn ask_reviewer(&self, number: u32) -> Result<Option<Judgement>, Error> {
        self.or_warn("a review by judgement", self.host.ask_reviewer(number))
    }

    /// Replaces a failure of `action` by `None` and logs it. Only the end of the request stays an error.
    fn or_warn<T>(&self, action: &str, outcome: Result<T, Error>) -> Result<Option<T>, Error> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(Error::Finished) => Err(Error::Finished),
            Err(Error::Refused(reason) | Error::Backend(reason) | Error::Other(reason)) => {
                self.host.warn(&format!("{action} failed: {reason}"));
                Ok(None)
            }
        }
    }
}
