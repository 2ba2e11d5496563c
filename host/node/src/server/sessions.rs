//! Calls on open sessions. A call continues when its caller's connection breaks, so that a repeated call
//! finds its reply. Closing the session aborts the call.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use tightwad_core::BackendError;
use tightwad_net::http::ApiError;
use tokio::sync::OwnedMutexGuard;

use crate::protocol::calls::{ProposeCall, ProposeReply, VerifyCall};
use crate::server::body::{RawBody, checked_response, parse_body};
use crate::server::registry::{SessionEntry, closed};
use crate::server::service::NodeService;
use crate::server::state::{Session, StaleSession};

/// The maximum number of tokens of one draft or proposal.
const MAX_DRAFT_TOKENS: usize = 1024;

impl From<StaleSession> for ApiError {
    fn from(StaleSession(message): StaleSession) -> Self {
        Self::stale_session(message)
    }
}

/// The session `id`.
pub(crate) fn entry(service: &NodeService, id: &str) -> Result<Arc<SessionEntry>, ApiError> {
    let entry = service.registry.get(id);
    entry.ok_or_else(|| {
        ApiError::stale_session(
            "there is no such session: it expired, was evicted, or belongs to an earlier run of the node",
        )
    })
}

/// Fails if a session of `context` tokens cannot hold `count` tokens.
pub(crate) fn check_length(count: usize, context: usize) -> Result<(), ApiError> {
    if count <= context {
        return Ok(());
    }
    let message = format!("the call has {count} tokens, and the context of this model has {context}");
    let code = Some("context_length_exceeded");
    Err(ApiError::from(BackendError::Invalid { message, parameter: Some("tokens"), code }))
}

/// Runs `work` on the session as a task that continues if the connection breaks.
async fn run_call<T, F>(
    service: &NodeService,
    entry: Arc<SessionEntry>,
    work: impl FnOnce(OwnedMutexGuard<Session>) -> F,
) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    entry.touch();
    // A caller that disconnects here leaves no task behind.
    let work = work(entry.acquire().await?);
    let task_entry = entry.clone();
    let task = tokio::spawn(async move {
        let done = work.await;
        task_entry.touch();
        done
    });
    entry.set_running_call(task.abort_handle());
    task.await.unwrap_or_else(|error| {
        if error.is_panic() {
            // The state of the session is unknown.
            service.registry.remove(&entry.id);
        }
        Err(closed().into())
    })
}

pub(crate) async fn verify(
    State(service): State<NodeService>,
    Path(id): Path<String>,
    body: RawBody,
) -> Result<Response, ApiError> {
    let call: VerifyCall = parse_body(body)?;
    if call.draft.len() > MAX_DRAFT_TOKENS {
        return Err(ApiError::invalid(
            Some("draft"),
            format!("a draft has at most {MAX_DRAFT_TOKENS} tokens"),
        ));
    }
    let draft = call.draft().map_err(|error| ApiError::invalid(Some("parents"), error.to_string()))?;
    let entry = entry(&service, &id)?;
    check_length(call.unverified.len(), entry.context)?;
    let clock = service.clock.clone();
    let start = clock.now();
    let work = move |mut session: OwnedMutexGuard<Session>| async move {
        let session = session.target()?;
        if let Some(step) = session.repeated_reply(&call) {
            return Ok(step);
        }
        session.check_position(call.position)?;
        session.accept(&call.unverified).await?;
        let verified = session.target.verify(&draft).await.map_err(ApiError::from)?;
        let elapsed = clock.since(start);
        let cost = verified.charged_time(elapsed);
        let mut step = session.commit(verified);
        step.set_times(elapsed, cost);
        session.store_reply(call, step.clone());
        Ok(step)
    };
    Ok(checked_response(&run_call(&service, entry, work).await?))
}

pub(crate) async fn propose(
    State(service): State<NodeService>,
    Path(id): Path<String>,
    body: RawBody,
) -> Result<Response, ApiError> {
    let call: ProposeCall = parse_body(body)?;
    if !(1..=MAX_DRAFT_TOKENS).contains(&(call.max_tokens as usize)) {
        return Err(ApiError::invalid(
            Some("max_tokens"),
            format!("a proposal has 1 to {MAX_DRAFT_TOKENS} tokens"),
        ));
    }
    let entry = entry(&service, &id)?;
    check_length((call.position.at as usize).saturating_add(call.tokens.len()), entry.context)?;
    let clock = service.clock.clone();
    let start = clock.now();
    let work = move |mut session: OwnedMutexGuard<Session>| async move {
        let session = session.drafter()?;
        let output = session.sync_tokens(&call)?;
        let proposals = session.propose(&output, &call).await.map_err(ApiError::from)?;
        let elapsed_us = u64::try_from(clock.since(start).as_micros()).unwrap_or(u64::MAX);
        Ok(ProposeReply { proposals, elapsed_us })
    };
    Ok(checked_response(&run_call(&service, entry, work).await?))
}

pub(crate) async fn close(
    State(service): State<NodeService>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    service.registry.remove(&id);
    Ok(StatusCode::NO_CONTENT)
}
