//! What sessions ask of the engine's thread.

use std::sync::mpsc;
use std::time::Instant;

use tightwad_core::{Draft, Proposal, Scored, TokenId, Verified};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::error::SessionError;
use crate::open_session::OpenSession;

/// Where sessions send their commands.
pub(crate) type Commands = mpsc::Sender<Command>;

/// One message to the engine's thread. Messages of one session arrive in the order they were sent.
pub(crate) enum Command {
    /// Open a sequence; answered with the number of tokens found in the cache.
    Open { id: u64, open: Box<OpenSession>, reply: oneshot::Sender<Result<u32, SessionError>> },
    /// Give an open sequence something to do.
    Work { id: u64, work: Work, sent: Instant },
    /// Forget a sequence, whether it is open or still waiting.
    Close { id: u64 },
}

/// What a sequence can be asked to do.
pub(crate) enum Work {
    /// Evaluate the prompt, all but its last token; then the opening is answered.
    Prefill { reused: u32, reply: oneshot::Sender<Result<u32, SessionError>> },
    /// Verify `draft` in one forward pass.
    Verify { draft: Draft, reply: oneshot::Sender<Result<Verified, SessionError>> },
    /// Append tokens that nobody verified, as many as are allowed; answered with how many.
    Accept { tokens: Vec<TokenId>, reply: oneshot::Sender<Result<usize, SessionError>> },
    /// Generate `left` more tokens, one step a token.
    Decode { left: u32, steps: UnboundedSender<Result<Verified, SessionError>> },
    /// Score `text`, of which `scored` is done.
    Score {
        text: Vec<TokenId>,
        scored: Vec<Scored>,
        reply: oneshot::Sender<Result<Vec<Scored>, SessionError>>,
    },
    /// As a drafter: continue `output` by up to `max` tokens.
    Propose {
        output: Vec<TokenId>,
        max: u32,
        min_probability: f32,
        proposals: Vec<Proposal>,
        reply: oneshot::Sender<Result<Vec<Proposal>, SessionError>>,
    },
}
