//! The commands that sessions send to the engine's thread.

use std::sync::{Arc, mpsc};
use std::time::Instant;

use tightwad_core::{Draft, Proposal, StepResult, TokenId, TokenScore};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::error::SessionError;
use crate::session_params::SessionParams;

/// The sending end of the command channel.
pub(crate) type CommandSender = mpsc::Sender<Command>;

/// One message to the engine's thread. The messages of one session arrive in the order of sending.
pub(crate) enum Command {
    /// Opens a sequence. The reply is the number of prompt tokens found in the cache.
    Open { id: u64, params: Box<SessionParams>, reply: oneshot::Sender<Result<u32, SessionError>> },
    /// Gives work to an open sequence.
    Work { id: u64, work: Work, sent_at: Instant },
    /// Closes a sequence, open or queued.
    Close { id: u64 },
    /// Makes the model's draft heads follow all passes from now on.
    EnableHeads,
    /// Lets the model's draft heads propose after a running sequence.
    ProposeWithHeads(HeadRequest),
}

/// A request for proposals of the model's draft heads.
pub(crate) struct HeadRequest {
    /// The prompt of the sequence that the proposal continues.
    pub prompt: Arc<[TokenId]>,
    /// The output of that sequence so far.
    pub output: Vec<TokenId>,
    pub max: u32,
    pub min_probability: f32,
    pub reply: oneshot::Sender<Result<Vec<Proposal>, SessionError>>,
}

/// A unit of work for a sequence.
pub(crate) enum Work {
    /// Evaluates all of the prompt but its last token, then replies to [`Command::Open`].
    Prefill { reused: u32, reply: oneshot::Sender<Result<u32, SessionError>> },
    /// Verifies `draft` in one forward pass.
    Verify { draft: Draft, reply: oneshot::Sender<Result<StepResult, SessionError>> },
    /// Appends tokens without verification, as many as the constraint and the token limit allow. The reply is
    /// the number of appended tokens.
    Accept { tokens: Vec<TokenId>, reply: oneshot::Sender<Result<usize, SessionError>> },
    /// Generates `remaining` more tokens, one per step.
    Decode { remaining: u32, steps: UnboundedSender<Result<StepResult, SessionError>> },
    /// Scores `text`; `scored` holds the finished part.
    Score {
        text: Vec<TokenId>,
        scored: Vec<TokenScore>,
        reply: oneshot::Sender<Result<Vec<TokenScore>, SessionError>>,
    },
    /// Continues `output` by up to `max` tokens, as a drafter.
    Propose {
        output: Vec<TokenId>,
        max: u32,
        min_probability: f32,
        proposals: Vec<Proposal>,
        reply: oneshot::Sender<Result<Vec<Proposal>, SessionError>>,
    },
}

impl Work {
    /// The first token outside a vocabulary of `vocabulary_size` tokens. Drafts are cut at such a token instead.
    pub(crate) fn find_unknown_token(&self, vocabulary_size: u32) -> Option<TokenId> {
        match self {
            Self::Propose { output: tokens, .. }
            | Self::Score { text: tokens, .. }
            | Self::Accept { tokens, .. } => tokens.iter().find(|token| **token >= vocabulary_size).copied(),
            Self::Prefill { .. } | Self::Verify { .. } | Self::Decode { .. } => None,
        }
    }

    /// Replies with `error`.
    pub(crate) fn fail(self, error: &SessionError) {
        let error = error.clone();
        // The session may be closed already.
        match self {
            Self::Prefill { reply, .. } => drop(reply.send(Err(error))),
            Self::Verify { reply, .. } => drop(reply.send(Err(error))),
            Self::Accept { reply, .. } => drop(reply.send(Err(error))),
            Self::Decode { steps, .. } => drop(steps.send(Err(error))),
            Self::Propose { reply, .. } => drop(reply.send(Err(error))),
            Self::Score { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    /// Drops results that the session does not know yet.
    pub(crate) fn restart(&mut self) {
        match self {
            Self::Score { scored, .. } => scored.clear(),
            Self::Propose { proposals, .. } => proposals.clear(),
            Self::Verify { draft, .. } => draft.limit_paths(1),
            Self::Prefill { .. } | Self::Accept { .. } | Self::Decode { .. } => {}
        }
    }
}
