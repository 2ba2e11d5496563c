//! Checks of a node's replies.
//!
//! A node can be faulty or hostile. The host keeps and counts only what it asked for.

use std::time::Duration;

use tightwad_core::{Draft, Proposal, TokenId, TokenScore};

use crate::protocol::calls::{OpenReply, Piece, ProposeReply, ScoreReply, Step, WireLogprobs};

/// The size of the largest vocabulary that the host supports, in tokens.
pub(crate) const MAX_VOCABULARY_TOKENS: TokenId = 1 << 22;
/// The longest text of a token in bytes.
pub(crate) const MAX_PIECE_BYTES: usize = 4096;
/// The maximum number of alternatives of a log-probability.
const MAX_ALTERNATIVES: usize = 20;
/// The longest id of a session in bytes.
const MAX_SESSION_ID_BYTES: usize = 64;
/// The longest time of a step that the host believes.
const MAX_STEP_TIME: Duration = Duration::from_secs(3600);

/// A reply has a value that does not answer the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongReply {
    /// The reply has more tokens or texts than the call asked for, or fewer texts.
    #[error("it has {0} {1}, and the call asked for {2}")]
    Count(usize, &'static str, usize),
    /// The accepted proposals are not a part of the call's draft, such as in the reply to another call.
    #[error("it accepts proposals that the call did not make")]
    Accepted,
    /// The token is outside every vocabulary.
    #[error("it has the token {0}")]
    Token(TokenId),
    /// The text of a token is too long.
    #[error("it has a token of {0} bytes")]
    Piece(usize),
    /// The session's id cannot be part of a path.
    #[error("it has an invalid session id")]
    SessionId,
}

fn check_count(count: usize, what: &'static str, max: usize) -> Result<(), WrongReply> {
    if count > max { Err(WrongReply::Count(count, what, max)) } else { Ok(()) }
}

pub(crate) fn check_tokens(tokens: &[TokenId]) -> Result<(), WrongReply> {
    let unknown = tokens.iter().find(|token| **token >= MAX_VOCABULARY_TOKENS);
    unknown.map_or(Ok(()), |token| Err(WrongReply::Token(*token)))
}

pub(crate) fn check_piece(token: TokenId, piece: &Piece) -> Result<(), WrongReply> {
    check_tokens(&[token])?;
    let bytes = match piece {
        Piece::Text(text) => text.len(),
        Piece::Bytes(bytes) => bytes.len(),
    };
    if bytes > MAX_PIECE_BYTES { Err(WrongReply::Piece(bytes)) } else { Ok(()) }
}

/// Checks the texts of `count` tokens.
pub(crate) fn check_pieces(pieces: &[Piece], tokens: &[TokenId]) -> Result<(), WrongReply> {
    if pieces.len() != tokens.len() {
        return Err(WrongReply::Count(pieces.len(), "texts", tokens.len()));
    }
    tokens.iter().zip(pieces).try_for_each(|(token, piece)| check_piece(*token, piece))
}

/// A log-probability that can be added up: finite and at most 0.
pub(crate) fn finite_logprob(value: f32) -> f32 {
    if value.is_nan() { f32::MIN } else { value.clamp(f32::MIN, 0.0) }
}

/// Checks a step that may commit `max_tokens` tokens and accept proposals of `draft`.
pub(crate) fn checked_step(step: Step, max_tokens: usize, draft: &Draft) -> Result<Step, WrongReply> {
    check_count(step.tokens.len(), "tokens", max_tokens)?;
    check_count(step.accepted as usize, "accepted proposals", draft.depth())?;
    // The proposal that ends the turn is accepted, but is not among the tokens.
    let accepted = step.tokens.iter().take(step.accepted as usize).map(|(token, _)| *token);
    let is_accepted = |path: &Vec<TokenId>| {
        path.len() >= step.accepted as usize && path.iter().zip(accepted.clone()).all(|(a, b)| *a == b)
    };
    if step.accepted > 0 && !draft.paths().iter().any(is_accepted) {
        return Err(WrongReply::Accepted);
    }
    check_count(step.logprobs.len(), "log-probabilities", step.tokens.len())?;
    step.tokens.iter().try_for_each(|(token, piece)| check_piece(*token, piece))?;
    let logprobs: Result<Vec<WireLogprobs>, _> = step.logprobs.into_iter().map(checked_logprobs).collect();
    let max_time_us = u64::try_from(MAX_STEP_TIME.as_micros()).unwrap_or(u64::MAX);
    let max_count = u32::try_from(max_tokens).unwrap_or(u32::MAX);
    Ok(Step {
        logprobs: logprobs?,
        ties: step.ties.min(max_count),
        elapsed_us: step.elapsed_us.min(max_time_us),
        cost_us: step.cost_us.map(|cost| cost.min(max_time_us)),
        ..step
    })
}

fn checked_logprobs(logprobs: WireLogprobs) -> Result<WireLogprobs, WrongReply> {
    check_count(logprobs.top.len(), "alternatives", MAX_ALTERNATIVES)?;
    let top = logprobs.top.into_iter().map(|(token, piece, value)| {
        check_piece(token, &piece)?;
        Ok((token, piece, finite_logprob(value)))
    });
    Ok(WireLogprobs { logprob: finite_logprob(logprobs.logprob), top: top.collect::<Result<_, _>>()? })
}

/// Checks the reply to a call that asked for at most `max` proposals.
pub(crate) fn checked_proposals(reply: ProposeReply, max: u32) -> Result<Vec<Proposal>, WrongReply> {
    check_count(reply.proposals.len(), "proposals", max as usize)?;
    let proposal = |(token, probability): (TokenId, f32)| {
        check_tokens(&[token])?;
        let probability = if probability.is_nan() { 0.0 } else { probability.clamp(0.0, 1.0) };
        Ok(Proposal { token, probability })
    };
    reply.proposals.into_iter().map(proposal).collect()
}

/// Checks the reply to a call that asked for the scores of at most `max` tokens.
pub(crate) fn checked_scores(reply: ScoreReply, max: usize) -> Result<Vec<TokenScore>, WrongReply> {
    check_count(reply.tokens.len(), "scores", max)?;
    let score = |scored| {
        let score = TokenScore::from(scored);
        check_tokens(&[score.token, score.best])?;
        let (logprob, best_logprob) = (finite_logprob(score.logprob), finite_logprob(score.best_logprob));
        Ok(TokenScore { logprob, best_logprob, ..score })
    };
    reply.tokens.into_iter().map(score).collect()
}

/// Checks the reply to a call that opens a session of at most `max_tokens` tokens.
pub(crate) fn checked_open_reply(reply: OpenReply, max_tokens: u32) -> Result<OpenReply, WrongReply> {
    let id = &reply.session;
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if id.is_empty() || id.len() > MAX_SESSION_ID_BYTES || !id.bytes().all(is_valid) {
        return Err(WrongReply::SessionId);
    }
    check_tokens(&reply.tokens)?;
    Ok(OpenReply { max_tokens: reply.max_tokens.min(max_tokens), ..reply })
}
