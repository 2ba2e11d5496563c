//! Scores and tokens: calls that need no session.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tightwad_core::{BackendError, Request, SharedBackend, TargetSource, Tokenizer, WireRequest};
use tightwad_net::http::ApiError;

use crate::protocol::calls::{
    DetokenizeCall, Detokenized, Piece, ScoreAnswer, ScoreCall, ScoredToken, TokenizeCall, Tokenized,
};
use crate::server::body::{Raw, read, sealed};
use crate::server::lent::Lent;

/// Most tokens of one call.
const MOST: usize = 1 << 20;

/// The tokenizer of `backend`; a backend without one cannot do `action`.
pub(crate) fn tokenizer(
    backend: &SharedBackend,
    action: &'static str,
) -> Result<Arc<dyn Tokenizer>, BackendError> {
    let tokenizer = backend.as_target().and_then(|target| target.tokenizer());
    tokenizer.ok_or_else(|| BackendError::unsupported(backend.name(), action))
}

/// The role of `backend` that reads prompts.
pub(crate) fn prompt_reader(backend: &SharedBackend) -> Result<&dyn TargetSource, BackendError> {
    backend.as_target().ok_or_else(|| BackendError::unsupported(backend.name(), "read tokens"))
}

fn request(wire: WireRequest) -> Result<Arc<Request>, ApiError> {
    let request = Request::try_from(wire);
    Ok(Arc::new(request.map_err(|error| ApiError::invalid(Some(error.parameter), error.to_string()))?))
}

pub(crate) async fn score(State(lent): State<Lent>, body: Raw) -> Result<Response, ApiError> {
    let call: ScoreCall = read(body)?;
    let backend = lent.model(&call.model)?;
    let part = call.from..call.to.unwrap_or(usize::MAX);
    let (request, tokenizer) = (request(call.request)?, tokenizer(&backend, "tokenize")?);
    let scored = backend.scorer()?.score(&request, &call.answer, part).await?;
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

pub(crate) async fn tokenize(State(lent): State<Lent>, body: Raw) -> Result<Response, ApiError> {
    let call: TokenizeCall = read(body)?;
    let backend = lent.model(&call.model)?;
    let answer = match call.request {
        Some(wire) => {
            let task = prompt_reader(&backend)?.read(&request(wire)?).await?;
            Tokenized {
                tokens: task.prompt.to_vec(),
                text: task.text.to_string(),
                max_tokens: task.max_tokens,
            }
        }
        None => {
            let tokens = tokenizer(&backend, "tokenize")?.tokenize(&call.text).await?;
            Tokenized { tokens, text: String::new(), max_tokens: 0 }
        }
    };
    Ok(sealed(&answer))
}

pub(crate) async fn detokenize(State(lent): State<Lent>, body: Raw) -> Result<Response, ApiError> {
    let call: DetokenizeCall = read(body)?;
    if call.tokens.len() > MOST {
        return Err(ApiError::invalid(Some("tokens"), format!("at most {MOST} tokens at once")));
    }
    let tokenizer = tokenizer(&lent.model(&call.model)?, "tokenize")?;
    let mut pieces = Vec::with_capacity(call.tokens.len());
    for token in call.tokens {
        pieces.push(Piece::from(tokenizer.detokenize(&[token]).await?));
    }
    Ok(sealed(&Detokenized { pieces }))
}
