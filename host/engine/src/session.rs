//! A session: one sequence on an engine.

use std::time::Instant;

use tightwad_core::{Draft, Proposal, StepResult, TokenId, TokenScore};
use tokio::sync::{mpsc, oneshot};

use crate::error::SessionError;
use crate::scheduler::command::{Command, CommandSender, Work};

/// An open sequence. After a drop, the engine frees the sequence before its next pass.
pub struct Session {
    pub(crate) id: u64,
    pub(crate) commands: CommandSender,
    pub(crate) reused_tokens: u32,
}

impl Session {
    /// Prompt tokens that the cache already held.
    #[must_use]
    pub fn reused_tokens(&self) -> u32 {
        self.reused_tokens
    }

    /// Verifies `draft`, which can be empty, in one forward pass and commits the target's own tokens. For a
    /// tree, the pass verifies the first path, and one more path per free slot.
    ///
    /// # Errors
    ///
    /// [`SessionError::Finished`] after the end of the output; errors of the engine.
    pub async fn verify(&mut self, draft: impl Into<Draft>) -> Result<StepResult, SessionError> {
        let (reply, reply_rx) = oneshot::channel();
        self.send_work(Work::Verify { draft: draft.into(), reply })?;
        reply_rx.await.map_err(|_| SessionError::Stopped)?
    }

    /// Appends `tokens` without verification, as if they had been committed. Stops at a token that the
    /// constraint or the token limit forbids, or that ends the turn. The next pass evaluates the tokens.
    /// Returns the number of appended tokens.
    ///
    /// # Errors
    ///
    /// [`SessionError::Finished`] after the end of the output, [`SessionError::UnknownToken`].
    pub async fn accept(&mut self, tokens: Vec<TokenId>) -> Result<usize, SessionError> {
        let (reply, reply_rx) = oneshot::channel();
        self.send_work(Work::Accept { tokens, reply })?;
        reply_rx.await.map_err(|_| SessionError::Stopped)?
    }

    /// Generates up to `max` tokens, one per step. The stream ends after these tokens, or after a step with a
    /// finish reason. Dropping the receiver stops the generation.
    ///
    /// # Errors
    ///
    /// [`SessionError::Stopped`] if the engine has stopped.
    pub fn decode(
        &mut self,
        max: u32,
    ) -> Result<mpsc::UnboundedReceiver<Result<StepResult, SessionError>>, SessionError> {
        let (steps, steps_rx) = mpsc::unbounded_channel();
        self.send_work(Work::Decode { remaining: max, steps })?;
        Ok(steps_rx)
    }

    /// Proposes up to `max` tokens after the prompt and `output`, as a drafter. Stops before a token that is
    /// less probable than `min_probability` or that ends the turn. Commits nothing.
    ///
    /// # Errors
    ///
    /// Errors of the engine.
    pub async fn propose(
        &mut self,
        output: Vec<TokenId>,
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, SessionError> {
        let (reply, reply_rx) = oneshot::channel();
        self.send_work(Work::Propose { output, max, min_probability, proposals: Vec::new(), reply })?;
        reply_rx.await.map_err(|_| SessionError::Stopped)?
    }

    /// Scores `text` as a continuation of the prompt, in several forward passes if `text` is long. Commits
    /// nothing. The session is finished afterwards.
    ///
    /// # Errors
    ///
    /// [`SessionError::TooLong`] if prompt and text do not fit the context; errors of the engine.
    pub async fn score(&mut self, text: Vec<TokenId>) -> Result<Vec<TokenScore>, SessionError> {
        let (reply, reply_rx) = oneshot::channel();
        self.send_work(Work::Score { text, scored: Vec::new(), reply })?;
        reply_rx.await.map_err(|_| SessionError::Stopped)?
    }

    fn send_work(&self, work: Work) -> Result<(), SessionError> {
        let command = Command::Work { id: self.id, work, sent_at: Instant::now() };
        self.commands.send(command).map_err(|_| SessionError::Stopped)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A stopped engine has already freed the sequence.
        let _ = self.commands.send(Command::Close { id: self.id });
    }
}
