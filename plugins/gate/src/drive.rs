//! Drives one request: members write, the reviewer reviews, and one of three calls ends it.
//!
//! Invariant: candidates are numbered as the host numbers them, by counting all that ever came. Once a call to
//! write fails nobody knows how many did, so nobody writes after it.

use tightwad_plugin_sdk::{Candidate, Error, Judgement, Review, ReviewMethods, TokenScore, Verdict};

use crate::choice;
use crate::host::Host;
use crate::scores::mean;
use crate::settings::Settings;
use crate::verdict::{built_in, by_score, checked, going_on};

/// Tokens of an answer's first part, where it is reviewed part by part; each part is as long as all before it.
const PART: u32 = 32;

/// How a request ends.
enum End {
    Approve(u32),
    Correct(u32, u32),
    Rewrite,
}

/// The state of one request.
pub struct Drive<'a, H> {
    host: &'a H,
    settings: Settings,
    ways: ReviewMethods,
    /// Who has not been asked to write, in the order in which they will be.
    left: std::vec::IntoIter<u32>,
    /// Candidates that came.
    came: u32,
    /// Tokens of the last candidate that the client has.
    passed: u32,
}

impl<'a, H: Host> Drive<'a, H> {
    /// Reads what the request is made of.
    #[must_use]
    pub fn new(host: &'a H) -> Self {
        let settings = Settings::read(&host.settings());
        let left = choice::order(&host.fleet()).into_iter();
        Self { host, settings, ways: host.ways(), left, came: 0, passed: 0 }
    }

    /// Goes on until the request is ended.
    ///
    /// # Errors
    ///
    /// What the host answered.
    pub fn run(&mut self) -> Result<(), Error> {
        let done = match self.decide()? {
            End::Approve(candidate) => self.host.approve(candidate),
            End::Correct(candidate, keep) => self.host.correct(candidate, keep),
            End::Rewrite => return self.host.rewrite(),
        };
        match done {
            // It did not end the request.
            Err(Error::Refused(why)) => {
                self.host.warn(&format!("the reviewer answers itself, as the verdict was refused: {why}"));
                self.host.rewrite()
            }
            done => done,
        }
    }

    /// Has answers written and reviewed until one is good enough or nobody is to be asked any more.
    fn decide(&mut self) -> Result<End, Error> {
        if !self.ways.score && !self.ways.judge {
            self.host.warn("the reviewer can review in no way that the script wants, so it answers itself");
            return Ok(End::Rewrite);
        }
        let (mut wanted, mut tries) = (self.settings.drafts, self.settings.tries);
        loop {
            let new = self.write(wanted as usize)?;
            if new.is_empty() {
                return Ok(End::Rewrite);
            }
            match self.review(new)? {
                End::Rewrite if tries > 0 && self.passed == 0 => (wanted, tries) = (1, tries - 1),
                end => return Ok(end),
            }
        }
    }

    /// Has `wanted` new candidates written, with their numbers; in place of members that were lost, the next
    /// ones write. Fewer come back where nobody is left.
    fn write(&mut self, wanted: usize) -> Result<Vec<(u32, Candidate)>, Error> {
        let mut new = Vec::new();
        while new.len() < wanted {
            let members: Vec<u32> = self.left.by_ref().take(wanted - new.len()).collect();
            if members.is_empty() {
                break;
            }
            let Some(written) = self.tried("writing", self.host.write(&members, members.len() as u32))?
            else {
                self.left = Vec::new().into_iter();
                break;
            };
            for candidate in written {
                new.push((self.came, candidate));
                self.came += 1;
            }
        }
        Ok(new)
    }

    /// The end that the best of these candidates allows. Scores come first, and then the best looking one, so
    /// that the first one approved is the best and the rest need no judgement.
    fn review(&mut self, candidates: Vec<(u32, Candidate)>) -> Result<End, Error> {
        // Of several, the best one is not known before the end.
        let alone = candidates.len() == 1 && self.settings.drafts == 1;
        let mut scored = Vec::with_capacity(candidates.len());
        for (number, candidate) in candidates {
            // An empty answer is none. One that its budget cut off may pass: the reviewer's would be, too.
            if candidate.character_count == 0 {
                continue;
            }
            if let Some(scores) = self.score(number, alone)? {
                scored.push((mean(&scores), number, scores));
            }
        }
        // Without scores they stay in the order of their coming.
        scored.sort_by(|one, other| other.0.total_cmp(&one.0));
        let (mut end, mut kept) = (End::Rewrite, 0);
        for (_, number, scores) in scored {
            match self.verdict(number, scores)? {
                Verdict::Approve => return Ok(End::Approve(number)),
                Verdict::Correct(keep) if keep > kept => (end, kept) = (End::Correct(number, keep), keep),
                Verdict::Correct(_) | Verdict::Reject => {}
            }
        }
        Ok(end)
    }

    /// A candidate's scores, empty where none are wanted; `None` where they are missing, which rejects it.
    /// What is good of a candidate that comes `alone` may go to the client on the way.
    fn score(&mut self, number: u32, alone: bool) -> Result<Option<Vec<TokenScore>>, Error> {
        if !self.ways.score {
            return Ok(Some(Vec::new()));
        }
        // A policy is shown whole reviews, and a judgement is one of a whole answer.
        let mut passing = alone && self.settings.stream && !self.ways.judge && !self.ways.policy;
        let mut wanted = if passing { PART } else { u32::MAX };
        loop {
            let Some(scores) = self.tried("a review by score", self.host.score(number, wanted))? else {
                return Ok(None);
            };
            if scores.len() < wanted as usize {
                return Ok(Some(scores).filter(|scores| !scores.is_empty()));
            }
            passing = passing && self.pass(number, &scores)?;
            // What is not good enough so far may be in the end: that is seen all at once.
            wanted = if passing { 2 * wanted } else { u32::MAX };
        }
    }

    /// Lets the client have what was scored, where it would be approved if it were all; true when it has it.
    fn pass(&mut self, number: u32, scores: &[TokenScore]) -> Result<bool, Error> {
        if !matches!(by_score(scores, &self.settings), Verdict::Approve) {
            return Ok(false);
        }
        let done = self.tried("passing on a part", self.host.pass(number, scores.len() as u32))?.is_some();
        if done {
            self.passed = scores.len() as u32;
        }
        Ok(done)
    }

    /// The verdict on a candidate with these scores: the policy plugin's, or the built-in one.
    fn verdict(&self, number: u32, scores: Vec<TokenScore>) -> Result<Verdict, Error> {
        let mut review = Review { scores, judgement: None };
        if self.ways.judge {
            if self.is_settled(&review) {
                return Ok(Verdict::Reject);
            }
            let Some(judgement) = self.judgement(number)? else { return Ok(Verdict::Reject) };
            review.judgement = Some(judgement);
        }
        Ok(match self.rule(number, &review) {
            Some(verdict) => checked(verdict, review.scores.len()),
            None if self.passed > 0 => going_on(&review.scores, self.passed, &self.settings),
            None => built_in(&review, self.ways, &self.settings),
        })
    }

    /// True when no judgement could change that the scores reject: nobody pays for one. A policy plugin may
    /// see that differently, and is shown the whole review.
    fn is_settled(&self, review: &Review) -> bool {
        let rejected = self.ways.score && matches!(by_score(&review.scores, &self.settings), Verdict::Reject);
        rejected && !self.ways.policy
    }

    /// What the policy plugin says.
    fn rule(&self, number: u32, review: &Review) -> Option<Verdict> {
        if self.ways.policy { self.host.judge(number, review) } else { None }
    }

    /// What the reviewer says; `None` where it failed.
    fn judgement(&self, number: u32) -> Result<Option<Judgement>, Error> {
        self.tried("a review by judgement", self.host.ask(number))
    }

    /// `None` where `what` failed, which the log says. An error only where the request is over.
    fn tried<T>(&self, what: &str, outcome: Result<T, Error>) -> Result<Option<T>, Error> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(Error::Finished) => Err(Error::Finished),
            Err(Error::Refused(why) | Error::Backend(why) | Error::Other(why)) => {
                self.host.warn(&format!("{what} failed: {why}"));
                Ok(None)
            }
        }
    }
}
