//! What a session of a node holds.
//!
//! Invariant: a target's `base` is where its engine session stands; `last` is the call that brought it
//! there, with its answer, so that a call whose answer was lost can be made again.

use tightwad_core::{BackendError, Drafter, Target, TokenId, Verified};
use tightwad_net::http::ApiError;

use crate::protocol::calls::{Base, Piece, ProposeCall, Step, VerifyCall, WireLogprobs};
use crate::protocol::hash::TokenHash;

/// A session, by what it is for.
pub(crate) enum Session {
    Target(TargetSession),
    Drafter(DrafterSession),
}

/// A session that verifies and decodes.
pub(crate) struct TargetSession {
    pub target: Box<dyn Target>,
    base: Base,
    last: Option<(VerifyCall, Step)>,
}

/// Why a call does not fit.
pub(crate) struct OutOfStep(pub String);

impl TargetSession {
    pub(crate) fn new(target: Box<dyn Target>, prompt: &[TokenId], output: &[TokenId]) -> Self {
        let mut hash = TokenHash::of(prompt);
        hash.extend(output);
        let at = u32::try_from(prompt.len() + output.len()).unwrap_or(u32::MAX);
        Self { target, base: Base { at, hash }, last: None }
    }

    /// The answer to a call that was made before, whose answer was lost.
    pub(crate) fn answered(&self, call: &VerifyCall) -> Option<Step> {
        self.last.as_ref().filter(|(last, _)| last == call).map(|(_, step)| step.clone())
    }

    /// Refuses a caller that stands elsewhere.
    pub(crate) fn check(&self, base: Base) -> Result<(), OutOfStep> {
        if base == self.base {
            return Ok(());
        }
        let (at, own) = (base.at, self.base.at);
        Err(OutOfStep(if at == own {
            format!("at {at} tokens this session has other tokens than the caller")
        } else {
            format!("this session stands at {own} tokens, not at {at}")
        }))
    }

    /// Takes tokens that the caller committed without asking.
    pub(crate) async fn accept(&mut self, tokens: &[TokenId]) -> Result<(), ApiError> {
        if tokens.is_empty() {
            return Ok(());
        }
        let accepted = self.target.accept(tokens).await?;
        self.base.at += u32::try_from(accepted).unwrap_or(u32::MAX);
        self.base.hash.extend(&tokens[..accepted]);
        if accepted == tokens.len() {
            return Ok(());
        }
        Err(OutOfStep(format!("of {} tokens that were not verified, {accepted} are possible", tokens.len())))?
    }

    /// Notes what was committed, and puts it into words.
    pub(crate) fn commit(&mut self, verified: Verified) -> Step {
        let mut step = Step {
            accepted: verified.accepted,
            ties: verified.ties,
            rows: verified.rows,
            finish: verified.finish,
            ..Step::default()
        };
        let piece = |token: TokenId| Piece::from(self.target.bytes(token));
        for committed in verified.committed {
            step.tokens.push((committed.token, piece(committed.token)));
            if let Some(logprobs) = committed.logprobs {
                let top = logprobs.top.into_iter().map(|(token, value)| (token, piece(token), value));
                step.logprobs.push(WireLogprobs { logprob: logprobs.logprob, top: top.collect() });
            }
            self.base.at += 1;
            self.base.hash.extend(&[committed.token]);
        }
        step
    }

    /// Keeps the answer to `call`.
    pub(crate) fn remember(&mut self, call: VerifyCall, step: Step) {
        self.last = Some((call, step));
    }

    /// After a decode there is no call to be made again.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}

/// A session that proposes.
pub(crate) struct DrafterSession {
    pub drafter: Box<dyn Drafter>,
    prompt: usize,
    /// Prompt and output, as the caller last told.
    tokens: Vec<TokenId>,
}

impl DrafterSession {
    pub(crate) fn new(drafter: Box<dyn Drafter>, prompt: &[TokenId], output: &[TokenId]) -> Self {
        Self { drafter, prompt: prompt.len(), tokens: [prompt, output].concat() }
    }

    /// Takes what the caller tells beyond the point where both agree; returns the output so far.
    pub(crate) fn follow(&mut self, call: &ProposeCall) -> Result<Vec<TokenId>, OutOfStep> {
        let at = call.base.at as usize;
        let known = self.tokens.get(..at).filter(|known| TokenHash::of(known) == call.base.hash);
        if known.is_none() || at < self.prompt {
            return Err(OutOfStep(format!(
                "this session does not have the caller's first {at} tokens; it has {}",
                self.tokens.len()
            )));
        }
        self.tokens.truncate(at);
        self.tokens.extend(&call.tokens);
        Ok(self.tokens[self.prompt..].to_vec())
    }

    pub(crate) async fn propose(
        &mut self,
        output: &[TokenId],
        call: &ProposeCall,
    ) -> Result<Vec<(TokenId, f32)>, BackendError> {
        let proposals = self.drafter.propose(output, call.max, call.min_probability).await?;
        // Three digits are enough for a probability, and short.
        let short = |probability: f32| (probability * 1000.0).round() / 1000.0;
        Ok(proposals.into_iter().map(|one| (one.token, short(one.probability))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;

    #[async_trait::async_trait]
    impl Drafter for Silent {
        fn name(&self) -> &str {
            "silent"
        }
        fn processor(&self) -> tightwad_core::Processor {
            tightwad_core::Processor::Nothing
        }
        fn expected(&self) -> tightwad_core::Expected {
            tightwad_core::Expected::default()
        }
        async fn propose(
            &mut self,
            _output: &[TokenId],
            _max: u32,
            _min: f32,
        ) -> Result<Vec<tightwad_core::Proposal>, BackendError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_drafter_follows_from_any_place_that_both_know_and_from_no_other() {
        let mut session = DrafterSession::new(Box::new(Silent), &[1, 2], &[]);
        let call = |known: &[TokenId], tokens: &[TokenId]| ProposeCall {
            base: Base { at: known.len() as u32, hash: TokenHash::of(known) },
            tokens: tokens.to_vec(),
            max: 4,
            min_probability: 0.0,
        };
        assert_eq!(session.follow(&call(&[1, 2], &[3, 4])).ok().unwrap(), [3, 4]);
        assert_eq!(session.follow(&call(&[1, 2, 3], &[5])).ok().unwrap(), [3, 5]);
        assert!(session.follow(&call(&[1, 2, 4], &[5])).is_err());
        assert!(session.follow(&call(&[1], &[5])).is_err());
        assert!(session.follow(&call(&[1, 2, 3, 5, 6], &[])).is_err());
    }
}
