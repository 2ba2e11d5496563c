//! Scores and tokens: calls that need no session.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::super::ServerState;
use super::super::error::ApiError;
use super::body::{Raw, read, sealed};
use crate::backend::{BackendError, SharedBackend, Tokenizer};
use crate::types::Request;
use crate::types::node::{
    DetokenizeCall, Detokenized, Piece, ScoreAnswer, ScoreCall, ScoredToken, TokenizeCall, Tokenized,
    WireRequest,
};

/// Most tokens of one call.
const MOST: usize = 1 << 20;

fn tokenizer(backend: &SharedBackend) -> Result<Arc<dyn Tokenizer>, ApiError> {
    let missing = || ApiError::from(BackendError::unsupported(backend.name(), "tokenize"));
    backend.tokenizer().ok_or_else(missing)
}

fn request(wire: WireRequest) -> Result<Arc<Request>, ApiError> {
    let request = Request::try_from(wire);
    Ok(Arc::new(request.map_err(|error| ApiError::invalid(Some(error.parameter), error.to_string()))?))
}

pub(super) async fn score(State(state): State<ServerState>, body: Raw) -> Result<Response, ApiError> {
    let lent = state.lent()?;
    let call: ScoreCall = read(body)?;
    let backend = lent.model(&call.model)?;
    let part = call.from..call.to.unwrap_or(usize::MAX);
    let (request, tokenizer) = (request(call.request)?, tokenizer(&backend)?);
    let scored = backend.score(&request, &call.answer, part).await?;
    let mut tokens = Vec::with_capacity(scored.len());
    for one in scored {
        let text = tokenizer.detokenize(&[one.token]).await?;
        tokens.push(ScoredToken {
            token: one.token,
            text: Piece::from(text),
            logprob: one.logprob,
            rank: one.rank,
            best: one.best,
            best_logprob: one.best_logprob,
        });
    }
    Ok(sealed(&ScoreAnswer { tokens }))
}

pub(super) async fn tokenize(State(state): State<ServerState>, body: Raw) -> Result<Response, ApiError> {
    let lent = state.lent()?;
    let call: TokenizeCall = read(body)?;
    let backend = lent.model(&call.model)?;
    let answer = match call.request {
        Some(wire) => {
            let task = backend.read(&request(wire)?).await?;
            Tokenized {
                tokens: task.prompt.to_vec(),
                text: task.text.to_string(),
                max_tokens: task.max_tokens,
            }
        }
        None => {
            let tokens = tokenizer(&backend)?.tokenize(&call.text).await?;
            Tokenized { tokens, text: String::new(), max_tokens: 0 }
        }
    };
    Ok(sealed(&answer))
}

pub(super) async fn detokenize(State(state): State<ServerState>, body: Raw) -> Result<Response, ApiError> {
    let lent = state.lent()?;
    let call: DetokenizeCall = read(body)?;
    if call.tokens.len() > MOST {
        return Err(ApiError::invalid(Some("tokens"), format!("at most {MOST} tokens at once")));
    }
    let tokenizer = tokenizer(&lent.model(&call.model)?)?;
    let mut pieces = Vec::with_capacity(call.tokens.len());
    for token in call.tokens {
        pieces.push(Piece::from(tokenizer.detokenize(&[token]).await?));
    }
    Ok(sealed(&Detokenized { pieces }))
}
