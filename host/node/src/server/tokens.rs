//! Scores and tokenization: calls without a session.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tightwad_core::{BackendError, Request, SharedBackend, TargetSource, Tokenizer, WireRequest};
use tightwad_net::http::ApiError;

use crate::protocol::calls::{
    DetokenizeCall, DetokenizeReply, Piece, ScoreCall, ScoreReply, ScoredToken, TokenizeCall, TokenizeReply,
};
use crate::server::body::{RawBody, checked_response, parse_body};
use crate::server::service::NodeService;

/// The maximum number of tokens of one detokenize call.
const MAX_DETOKENIZE_TOKENS: usize = 1 << 20;

/// The tokenizer of `backend`. Without a tokenizer, the error reports that the backend cannot do `action`.
pub(crate) fn tokenizer(
    backend: &SharedBackend,
    action: &'static str,
) -> Result<Arc<dyn Tokenizer>, BackendError> {
    let tokenizer = backend.as_target().and_then(|target| target.tokenizer());
    tokenizer.ok_or_else(|| BackendError::unsupported(backend.name(), action))
}

/// The target role of `backend`, which processes prompts.
pub(crate) fn prompt_reader(backend: &SharedBackend) -> Result<&dyn TargetSource, BackendError> {
    backend.as_target().ok_or_else(|| BackendError::unsupported(backend.name(), "read tokens"))
}

fn request(wire: WireRequest) -> Result<Arc<Request>, ApiError> {
    let request = Request::try_from(wire);
    Ok(Arc::new(request.map_err(|error| ApiError::invalid(Some(error.parameter), error.to_string()))?))
}

pub(crate) async fn score(State(service): State<NodeService>, body: RawBody) -> Result<Response, ApiError> {
    let call: ScoreCall = parse_body(body)?;
    let backend = service.model(&call.model)?;
    let part = call.from..call.to.unwrap_or(usize::MAX);
    let (request, tokenizer) = (request(call.request)?, tokenizer(&backend, "tokenize")?);
    let scored = backend.scorer()?.score(&request, &call.answer, part).await?;
    let mut tokens = Vec::with_capacity(scored.len());
    for score in scored {
        let text = tokenizer.detokenize(&[score.token]).await?;
        tokens.push(ScoredToken {
            token: score.token,
            text: Piece::from(text),
            logprob: score.logprob,
            rank: score.rank,
            best: score.best,
            best_logprob: score.best_logprob,
        });
    }
    Ok(checked_response(&ScoreReply { tokens }))
}

pub(crate) async fn tokenize(
    State(service): State<NodeService>,
    body: RawBody,
) -> Result<Response, ApiError> {
    let call: TokenizeCall = parse_body(body)?;
    let backend = service.model(&call.model)?;
    let answer = match call.request {
        Some(wire) => {
            let prepared = prompt_reader(&backend)?.prepare(&request(wire)?).await?;
            TokenizeReply {
                tokens: prepared.prompt.to_vec(),
                text: prepared.text.to_string(),
                max_tokens: prepared.max_tokens,
            }
        }
        None => {
            let tokens = tokenizer(&backend, "tokenize")?.tokenize(&call.text).await?;
            TokenizeReply { tokens, text: String::new(), max_tokens: 0 }
        }
    };
    Ok(checked_response(&answer))
}

pub(crate) async fn detokenize(
    State(service): State<NodeService>,
    body: RawBody,
) -> Result<Response, ApiError> {
    let call: DetokenizeCall = parse_body(body)?;
    if call.tokens.len() > MAX_DETOKENIZE_TOKENS {
        return Err(ApiError::invalid(
            Some("tokens"),
            format!("a call has at most {MAX_DETOKENIZE_TOKENS} tokens"),
        ));
    }
    let tokenizer = tokenizer(&service.model(&call.model)?, "tokenize")?;
    let mut pieces = Vec::with_capacity(call.tokens.len());
    for token in call.tokens {
        pieces.push(Piece::from(tokenizer.detokenize(&[token]).await?));
    }
    Ok(checked_response(&DetokenizeReply { pieces }))
}
