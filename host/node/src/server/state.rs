//! The state of a session on a node.
//!
//! Invariant: a target's `position` is the position of its engine session. `last` is the call that led there,
//! with its reply. The caller can therefore repeat a call whose reply was lost.

use tightwad_core::{BackendError, Drafter, StepResult, Target, TokenId};
use tightwad_net::http::ApiError;

use crate::protocol::calls::{Piece, Position, ProposeCall, Step, VerifyCall, WireLogprobs};
use crate::protocol::hash::TokenHash;

/// A session, by its role.
pub(crate) enum Session {
    Target(TargetSession),
    Drafter(DrafterSession),
}

impl Session {
    /// The session as a target.
    pub(crate) fn target(&mut self) -> Result<&mut TargetSession, ApiError> {
        match self {
            Self::Target(session) => Ok(session),
            Self::Drafter(_) => Err(wrong_role("target")),
        }
    }

    /// The session as a drafter.
    pub(crate) fn drafter(&mut self) -> Result<&mut DrafterSession, ApiError> {
        match self {
            Self::Drafter(session) => Ok(session),
            Self::Target(_) => Err(wrong_role("drafter")),
        }
    }
}

fn wrong_role(role: &str) -> ApiError {
    ApiError::invalid(None, format!("this session was not opened as a {role}"))
}

/// A target session: it verifies and decodes.
pub(crate) struct TargetSession {
    pub target: Box<dyn Target>,
    position: Position,
    last: Option<(VerifyCall, Step)>,
}

/// The caller's position differs from the session's position. The text describes the difference.
pub(crate) struct StaleSession(pub String);

impl TargetSession {
    pub(crate) fn new(target: Box<dyn Target>, prompt: &[TokenId], output: &[TokenId]) -> Self {
        let mut hash = TokenHash::new(prompt);
        hash.extend(output);
        let at = u32::try_from(prompt.len() + output.len()).unwrap_or(u32::MAX);
        Self { target, position: Position { at, hash }, last: None }
    }

    /// The reply to `call`, if it repeats the last call.
    pub(crate) fn repeated_reply(&self, call: &VerifyCall) -> Option<Step> {
        self.last.as_ref().filter(|(last, _)| last == call).map(|(_, step)| step.clone())
    }

    /// Fails if the caller is at another position.
    pub(crate) fn check_position(&self, position: Position) -> Result<(), StaleSession> {
        if position == self.position {
            return Ok(());
        }
        let (caller_position, session_position) = (position.at, self.position.at);
        Err(StaleSession(if caller_position == session_position {
            format!("this session has other tokens than the caller at position {caller_position}")
        } else {
            format!("this session is at position {session_position}, not at {caller_position}")
        }))
    }

    /// Commits tokens that the caller committed without verification.
    pub(crate) async fn accept(&mut self, tokens: &[TokenId]) -> Result<(), ApiError> {
        if tokens.is_empty() {
            return Ok(());
        }
        let accepted = self.target.append_unverified(tokens).await?;
        self.position.at += u32::try_from(accepted).unwrap_or(u32::MAX);
        self.position.hash.extend(&tokens[..accepted]);
        if accepted == tokens.len() {
            return Ok(());
        }
        Err(StaleSession(format!(
            "the session can accept only {accepted} of {} unverified tokens",
            tokens.len()
        )))?
    }

    /// Advances the position and converts the result to a step of the protocol.
    pub(crate) fn commit(&mut self, verified: StepResult) -> Step {
        let mut step = Step {
            accepted: verified.accepted,
            ties: verified.ties,
            rows: verified.rows,
            finish_reason: verified.finish_reason,
            ..Step::default()
        };
        let piece = |token: TokenId| Piece::from(self.target.bytes(token));
        for committed in verified.committed {
            step.tokens.push((committed.token, piece(committed.token)));
            if let Some(logprobs) = committed.logprobs {
                let top = logprobs.top.into_iter().map(|(token, value)| (token, piece(token), value));
                step.logprobs.push(WireLogprobs { logprob: logprobs.logprob, top: top.collect() });
            }
            self.position.at += 1;
            self.position.hash.extend(&[committed.token]);
        }
        step
    }

    /// Stores the reply to `call`.
    pub(crate) fn store_reply(&mut self, call: VerifyCall, step: Step) {
        self.last = Some((call, step));
    }

    /// Drops the stored reply: a decode cannot be repeated.
    pub(crate) fn drop_reply(&mut self) {
        self.last = None;
    }
}

/// A drafter session: it proposes.
pub(crate) struct DrafterSession {
    pub drafter: Box<dyn Drafter>,
    prompt_tokens: usize,
    /// Prompt and output, as the caller last sent them.
    tokens: Vec<TokenId>,
}

impl DrafterSession {
    pub(crate) fn new(drafter: Box<dyn Drafter>, prompt: &[TokenId], output: &[TokenId]) -> Self {
        Self { drafter, prompt_tokens: prompt.len(), tokens: [prompt, output].concat() }
    }

    /// Replaces the tokens after the common position. Returns the output so far.
    pub(crate) fn sync_tokens(&mut self, call: &ProposeCall) -> Result<Vec<TokenId>, StaleSession> {
        let at = call.position.at as usize;
        let known = self.tokens.get(..at).filter(|known| TokenHash::new(known) == call.position.hash);
        if known.is_none() || at < self.prompt_tokens {
            return Err(StaleSession(format!(
                "this session does not have the caller's first {at} tokens; it has {} tokens",
                self.tokens.len()
            )));
        }
        self.tokens.truncate(at);
        self.tokens.extend(&call.tokens);
        Ok(self.tokens[self.prompt_tokens..].to_vec())
    }

    pub(crate) async fn propose(
        &mut self,
        output: &[TokenId],
        call: &ProposeCall,
    ) -> Result<Vec<(TokenId, f32)>, BackendError> {
        let proposals = self.drafter.propose(output, call.max_tokens, call.min_probability).await?;
        // Three digits are precise enough for a probability, and short.
        let rounded = |probability: f32| (probability * 1000.0).round() / 1000.0;
        Ok(proposals.into_iter().map(|proposal| (proposal.token, rounded(proposal.probability))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct SilentDrafter;

    #[async_trait::async_trait]
    impl Drafter for SilentDrafter {
        fn name(&self) -> &str {
            "silent"
        }
        fn device(&self) -> tightwad_core::Device {
            tightwad_core::Device::None
        }
        fn expected_cost(&self) -> tightwad_core::DraftCost {
            tightwad_core::DraftCost::default()
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
    fn drafter_session_syncs_from_common_positions_only() {
        let mut session = DrafterSession::new(Box::new(SilentDrafter), &[1, 2], &[]);
        let call = |known: &[TokenId], tokens: &[TokenId]| ProposeCall {
            position: Position { at: known.len() as u32, hash: TokenHash::new(known) },
            tokens: tokens.to_vec(),
            max_tokens: 4,
            min_probability: 0.0,
        };
        assert_eq!(session.sync_tokens(&call(&[1, 2], &[3, 4])).ok().unwrap(), [3, 4]);
        assert_eq!(session.sync_tokens(&call(&[1, 2, 3], &[5])).ok().unwrap(), [3, 5]);
        assert!(session.sync_tokens(&call(&[1, 2, 4], &[5])).is_err());
        assert!(session.sync_tokens(&call(&[1], &[5])).is_err());
        assert!(session.sync_tokens(&call(&[1, 2, 3, 5, 6], &[])).is_err());
    }
}
