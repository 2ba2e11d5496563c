//! One sequence on an engine, as its owner sees it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::scheduler::{Command, Commands, Work};
use crate::{Constraint, Draft, Sampling, SessionError, TokenId, TokenLogprobs};

/// What to open.
#[derive(Clone)]
pub struct OpenSession {
    /// The prompt; not empty.
    pub prompt: Vec<TokenId>,
    /// What was generated after it already, elsewhere: generation goes on behind it.
    pub output: Vec<TokenId>,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// What the output must look like.
    pub constraint: Option<Constraint>,
    /// Most tokens to generate, `output` included.
    pub max_tokens: u32,
    /// Evaluate the prompt before the opening is answered (targets), or with the first work
    /// (drafters, which may never be asked).
    pub prefill: bool,
}

/// A token that is final.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// The token.
    pub token: TokenId,
    /// Log-probabilities, when the settings ask for them.
    pub logprobs: Option<TokenLogprobs>,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended its turn, or a stop string was reached.
    Stop,
    /// `max_tokens` was reached.
    Length,
}

/// The outcome of one verification, or of one step of a decode.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Verified {
    /// What was committed: accepted proposals and one token more, unless the sequence ended. The
    /// token that ends a turn is not among them.
    pub committed: Vec<Committed>,
    /// How many proposals were accepted: of a tree, on one path.
    pub accepted: u32,
    /// Positions decided again by the one-token path.
    pub ties: u32,
    /// Rows of the pass over the proposals: each path behind rows of its own for what came before it. 0 where
    /// there were none.
    pub rows: u32,
    /// Time from the call to its answer, by the clock of the machine that owns the pass.
    pub took: Duration,
    /// What the request is charged for that time. It differs from `took` where requests share a pass: each pays for
    /// its own rows, at the price of a model that does nothing else.
    pub cost: Duration,
    /// Set when the sequence ended.
    pub finish: Option<Finish>,
}

impl Verified {
    /// What a caller is charged who waited `wall` for this: the way there and back, and the cost.
    #[must_use]
    pub fn charged(&self, wall: Duration) -> Duration {
        wall.saturating_sub(self.took) + self.cost
    }
}

/// A proposed token and the drafter's own probability for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proposal {
    /// The token.
    pub token: TokenId,
    /// 0 to 1.
    pub probability: f32,
}

/// What the model thinks of one token of a given text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of the model's probability for it.
    pub logprob: f32,
    /// How many tokens were more probable.
    pub rank: u32,
    /// The most probable token there.
    pub best: TokenId,
    /// Its log-probability.
    pub best_logprob: f32,
}

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
