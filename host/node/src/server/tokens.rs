//! Scores and tokenization: calls without a session.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tightwad_core::{
    BackendError, Request, SharedBackend, TargetSource, TokenId, TokenScore, Tokenizer, WireRequest,
};
use tightwad_net::http::ApiError;
use tokio::runtime::Handle;

use crate::protocol::calls::{
    DetokenizeCall, DetokenizeReply, Piece, ScoreCall, ScoreReply, ScoredToken, TokenizeCall, TokenizeReply,
};
use crate::server::body::{RawBody, checked_response, parse_body};
use crate::server::service::NodeService;

/// The maximum number of tokens of one detokenize call: the largest vocabularies have as many.
const MAX_DETOKENIZE_TOKENS: usize = 1 << 18;

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
    if part.start > part.end {
        return Err(ApiError::invalid(Some("from"), "'from' is greater than 'to'"));
    }
    let (request, tokenizer) = (request(call.request)?, tokenizer(&backend, "tokenize")?);
    let scored = backend.scorer()?.score(&request, &call.answer, part).await?;
    let texts = pieces(&service, tokenizer, scored.iter().map(|score| score.token).collect()).await?;
    let token = |(score, text): (TokenScore, Piece)| ScoredToken {
        token: score.token,
        text,
        logprob: score.logprob,
        rank: score.rank,
        best: score.best,
        best_logprob: score.best_logprob,
    };
    let tokens = scored.into_iter().zip(texts).map(token).collect();
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
    let pieces = pieces(&service, tokenizer, call.tokens).await?;
    Ok(checked_response(&DetokenizeReply { pieces }))
}

/// The texts of `tokens`. The work runs beside the runtime's threads, on one thread per core at most: hundreds
/// of thousands of tokens take a second.
async fn pieces(
    service: &NodeService,
    tokenizer: Arc<dyn Tokenizer>,
    tokens: Vec<TokenId>,
) -> Result<Vec<Piece>, ApiError> {
    let crashed = |error: &dyn std::error::Error| ApiError::unavailable(error.to_string());
    let permit = service.text_threads.clone().acquire_owned().await.map_err(|error| crashed(&error))?;
    let runtime = Handle::current();
    let work = move || {
        // The thread keeps the permit even if the caller disconnects.
        let _permit = permit;
        runtime.block_on(async {
            let mut pieces = Vec::with_capacity(tokens.len());
            for token in tokens {
                pieces.push(Piece::from(tokenizer.detokenize(&[token]).await?));
            }
            Ok::<_, BackendError>(pieces)
        })
    };
    let pieces = tokio::task::spawn_blocking(work).await.map_err(|error| crashed(&error))?;
    Ok(pieces?)
}
