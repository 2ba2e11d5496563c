//! One sequence on an engine, as its owner sees it.

use std::time::Instant;

use tightwad_core::{Draft, Proposal, Scored, TokenId, Verified};
use tokio::sync::{mpsc, oneshot};

use crate::error::SessionError;
use crate::scheduler::command::{Command, Commands, Work};

/// An open sequence. Dropping it frees the sequence within one tick of the engine.
pub struct Session {
    pub(crate) id: u64,
    pub(crate) commands: Commands,
    pub(crate) reused: u32,
}

impl Session {
    /// Tokens of the prompt that were already in the cache.
    #[must_use]
    pub fn reused(&self) -> u32 {
        self.reused
    }

    /// Verifies `draft` (may be empty) in one forward pass and commits the target's own tokens. Of a
    /// tree, as many paths are verified as there are free slots, one more than that.
    ///
    /// # Errors
    ///
    /// [`SessionError::Finished`] after the end; engine failures.
    pub async fn verify(&mut self, draft: impl Into<Draft>) -> Result<Verified, SessionError> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Verify { draft: draft.into(), reply })?;
        answer.await.map_err(|_| SessionError::Stopped)?
    }

    /// Appends `tokens` unverified, as if they had been committed, up to the first that the constraint or the
    /// end of the budget forbids or that ends the turn. Nothing is computed before the next pass. How many
    /// were appended.
    ///
    /// # Errors
    ///
    /// [`SessionError::Finished`] after the end, [`SessionError::UnknownToken`].
    pub async fn accept(&mut self, tokens: Vec<TokenId>) -> Result<usize, SessionError> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Accept { tokens, reply })?;
        answer.await.map_err(|_| SessionError::Stopped)?
    }

    /// Generates up to `max` tokens, one step an item; the stream ends after them, or with a step
    /// that carries a finish. Dropping the receiver ends the generation.
    ///
    /// # Errors
    ///
    /// [`SessionError::Stopped`] when the engine is gone.
    pub fn decode(
        &mut self,
        max: u32,
    ) -> Result<mpsc::UnboundedReceiver<Result<Verified, SessionError>>, SessionError> {
        let (steps, stream) = mpsc::unbounded_channel();
        self.send(Work::Decode { left: max, steps })?;
        Ok(stream)
    }

    /// As a drafter: proposes up to `max` tokens after the prompt and `output`, and stops before a
    /// token less probable than `min_probability` or one that ends the turn. Commits nothing.
    ///
    /// # Errors
    ///
    /// Engine failures.
    pub async fn propose(
        &mut self,
        output: Vec<TokenId>,
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, SessionError> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Propose { output, max, min_probability, proposals: Vec::new(), reply })?;
        answer.await.map_err(|_| SessionError::Stopped)?
    }

    /// Scores `text` as a continuation of the prompt, in as few forward passes as fit the engine's
    /// ticks. Nothing is committed, and the session is finished afterwards.
    ///
    /// # Errors
    ///
    /// [`SessionError::TooLong`] when prompt and text do not fit the context; engine failures.
    pub async fn score(&mut self, text: Vec<TokenId>) -> Result<Vec<Scored>, SessionError> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Score { text, scored: Vec::new(), reply })?;
        answer.await.map_err(|_| SessionError::Stopped)?
    }

    fn send(&self, work: Work) -> Result<(), SessionError> {
        let command = Command::Work { id: self.id, work, sent: Instant::now() };
        self.commands.send(command).map_err(|_| SessionError::Stopped)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // An engine that is gone has freed everything already.
        let _ = self.commands.send(Command::Close { id: self.id });
    }
}
