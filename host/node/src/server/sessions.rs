//! Calls on open sessions. A call continues when its caller's connection breaks, so that a repeated call
//! finds its reply. Closing the session aborts the call.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tightwad_core::BackendError;
use tightwad_net::http::ApiError;
use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::protocol::calls::{DecodeCall, ProposeCall, ProposeReply, Step, VerifyCall};
use crate::protocol::checksum::to_checked_json;
use crate::server::body::{RawBody, checked_response, parse_body};
use crate::server::registry::SessionEntry;
use crate::server::service::NodeService;
use crate::server::state::{Session, StaleSession};

/// The number of steps that wait for a slow reader before the decode pauses.
const STEP_BUFFER: usize = 64;
/// The maximum number of tokens of one draft or proposal.
const MAX_DRAFT_TOKENS: usize = 1024;

impl From<StaleSession> for ApiError {
    fn from(StaleSession(message): StaleSession) -> Self {
        Self::stale_session(message)
    }
}

fn entry(service: &NodeService, id: &str) -> Result<Arc<SessionEntry>, ApiError> {
    let entry = service.registry.get(id);
    entry.ok_or_else(|| {
        ApiError::stale_session(format!(
            "there is no session '{id}': it expired, was evicted, or belongs to an earlier run of the node"
        ))
    })
}

fn wrong_role(role: &str) -> ApiError {
    ApiError::invalid(None, format!("this session was not opened as a {role}"))
}

/// Runs `work` as a task that continues if the connection breaks.
async fn run_call<T: Send + 'static>(
    entry: &Arc<SessionEntry>,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    entry.touch();
    let task = tokio::spawn(work);
    entry.set_running_call(task.abort_handle());
    let done = task.await;
    entry.touch();
    done.unwrap_or_else(|_| Err(ApiError::stale_session("the session was closed".to_owned())))
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
    let (task_entry, clock) = (entry.clone(), service.clock.clone());
    let work = async move {
        let start = clock.now();
        let mut session = task_entry.session.lock().await;
        let Session::Target(session) = &mut *session else { return Err(wrong_role("target")) };
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
    Ok(checked_response(&run_call(&entry, work).await?))
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
    let (task_entry, clock) = (entry.clone(), service.clock.clone());
    let work = async move {
        let start = clock.now();
        let mut session = task_entry.session.lock().await;
        let Session::Drafter(session) = &mut *session else { return Err(wrong_role("drafter")) };
        let output = session.sync_tokens(&call)?;
        let proposals = session.propose(&output, &call).await.map_err(ApiError::from)?;
        let elapsed_us = u64::try_from(clock.since(start).as_micros()).unwrap_or(u64::MAX);
        Ok(ProposeReply { proposals, elapsed_us })
    };
    Ok(checked_response(&run_call(&entry, work).await?))
}

pub(crate) async fn decode(
    State(service): State<NodeService>,
    Path(id): Path<String>,
    body: RawBody,
) -> Result<Response, ApiError> {
    let call: DecodeCall = parse_body(body)?;
    let registry = service.registry.clone();
    let entry = entry(&service, &id)?;
    entry.touch();
    let mut session = entry.session.clone().lock_owned().await;
    let Session::Target(target) = &mut *session else { return Err(wrong_role("target")) };
    target.check_position(call.position)?;
    target.drop_reply();
    target.accept(&call.unverified).await?;
    target.target.decode(call.max_tokens).await.map_err(ApiError::from)?;
    let (lines, receiver) = mpsc::channel(STEP_BUFFER);
    let task_entry = entry.clone();
    let task = tokio::spawn(async move {
        if !steps(&task_entry, session, call.max_tokens, lines).await {
            // The caller does not know the session's new position.
            registry.remove(&task_entry.id);
        }
    });
    entry.set_running_call(task.abort_handle());
    let lines = stream::unfold(receiver, |mut receiver| async move {
        let line: Bytes = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), receiver))
    });
    Ok(([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// Sends one line per step until the decode ends. Returns false if the reader disconnected.
async fn steps(
    entry: &SessionEntry,
    mut session: OwnedMutexGuard<Session>,
    max: u32,
    lines: mpsc::Sender<Bytes>,
) -> bool {
    let Session::Target(session) = &mut *session else { return true };
    let (mut remaining, mut finished) = (max as usize, false);
    loop {
        // A caller that has every token can close the stream before its end.
        if remaining == 0 || finished {
            return matches!(session.target.step().await, Ok(None));
        }
        let step = tokio::select! {
            step = session.target.step() => step,
            () = lines.closed() => return false,
        };
        entry.touch();
        let step = match step {
            Ok(None) => return true,
            Ok(Some(verified)) => {
                remaining = remaining.saturating_sub(verified.committed.len());
                finished = verified.finish_reason.is_some();
                let (elapsed, cost) = (verified.elapsed, verified.cost);
                let mut step = session.commit(verified);
                // The caller measures the whole decode, so it needs the times only if they differ.
                if elapsed != cost {
                    step.set_times(elapsed, cost);
                }
                step
            }
            Err(BackendError::Cancelled) => return false,
            Err(error) => Step { error: Some(error.to_string()), ..Step::default() },
        };
        let Ok(mut line) = to_checked_json(&step) else { return false };
        line.push(b'\n');
        if lines.send(line.into()).await.is_err() {
            return false;
        }
        if step.error.is_some() {
            return true;
        }
    }
}

pub(crate) async fn close(
    State(service): State<NodeService>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    service.registry.remove(&id);
    Ok(StatusCode::NO_CONTENT)
}
