//! Calls on open sessions. A call goes on when its caller's connection breaks, so that the same call made
//! again finds its answer; closing the session ends it.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tightwad_core::BackendError;
use tightwad_net::http::ApiError;
use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::protocol::calls::{DecodeCall, ProposeAnswer, ProposeCall, Step, VerifyCall};
use crate::protocol::seal::seal;
use crate::server::body::{Raw, read, sealed};
use crate::server::lent::Lent;
use crate::server::registry::Entry;
use crate::server::state::{OutOfStep, Session};

/// Steps that wait for a slow reader before a decode pauses.
const BUFFER: usize = 64;
/// Most tokens of one draft, and of one proposal.
const LONGEST: usize = 1024;

impl From<OutOfStep> for ApiError {
    fn from(OutOfStep(message): OutOfStep) -> Self {
        Self::out_of_step(message)
    }
}

fn entry(lent: &Lent, id: &str) -> Result<Arc<Entry>, ApiError> {
    let found = lent.registry.get(id);
    found.ok_or_else(|| {
        ApiError::out_of_step(format!(
            "there is no session '{id}': it expired, made room, or was before a restart"
        ))
    })
}

fn wrong_role(wanted: &str) -> ApiError {
    ApiError::invalid(None, format!("this session was not opened as a {wanted}"))
}

/// Runs `work` to its end, whatever happens to the connection.
async fn run<T: Send + 'static>(
    entry: &Arc<Entry>,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    entry.touch();
    let task = tokio::spawn(work);
    entry.runs(task.abort_handle());
    let done = task.await;
    entry.touch();
    done.unwrap_or_else(|_| Err(ApiError::out_of_step("the session was closed".to_owned())))
}

pub(crate) async fn verify(
    State(lent): State<Lent>,
    Path(id): Path<String>,
    body: Raw,
) -> Result<Response, ApiError> {
    let call: VerifyCall = read(body)?;
    if call.draft.len() > LONGEST {
        return Err(ApiError::invalid(Some("draft"), format!("a draft has at most {LONGEST} tokens")));
    }
    let draft = call.draft().map_err(|error| ApiError::invalid(Some("parents"), error.to_string()))?;
    let entry = entry(&lent, &id)?;
    let (held, clock) = (entry.clone(), lent.clock.clone());
    let work = async move {
        let start = clock.now();
        let mut session = held.session.lock().await;
        let Session::Target(session) = &mut *session else { return Err(wrong_role("target")) };
        if let Some(step) = session.answered(&call) {
            return Ok(step);
        }
        session.check(call.base)?;
        session.accept(&call.unverified).await?;
        let verified = session.target.verify(&draft).await.map_err(ApiError::from)?;
        let took = clock.since(start);
        let cost = verified.charged(took);
        let mut step = session.commit(verified);
        step.timed(took, cost);
        session.remember(call, step.clone());
        Ok(step)
    };
    Ok(sealed(&run(&entry, work).await?))
}

pub(crate) async fn propose(
    State(lent): State<Lent>,
    Path(id): Path<String>,
    body: Raw,
) -> Result<Response, ApiError> {
    let call: ProposeCall = read(body)?;
    if !(1..=LONGEST).contains(&(call.max as usize)) {
        return Err(ApiError::invalid(Some("max"), format!("a proposal has 1 to {LONGEST} tokens")));
    }
    let entry = entry(&lent, &id)?;
    let (held, clock) = (entry.clone(), lent.clock.clone());
    let work = async move {
        let start = clock.now();
        let mut session = held.session.lock().await;
        let Session::Drafter(session) = &mut *session else { return Err(wrong_role("drafter")) };
        let output = session.follow(&call)?;
        let proposals = session.propose(&output, &call).await.map_err(ApiError::from)?;
        let us = u64::try_from(clock.since(start).as_micros()).unwrap_or(u64::MAX);
        Ok(ProposeAnswer { proposals, us })
    };
    Ok(sealed(&run(&entry, work).await?))
}

pub(crate) async fn decode(
    State(lent): State<Lent>,
    Path(id): Path<String>,
    body: Raw,
) -> Result<Response, ApiError> {
    let call: DecodeCall = read(body)?;
    let registry = lent.registry.clone();
    let entry = entry(&lent, &id)?;
    entry.touch();
    let mut session = entry.session.clone().lock_owned().await;
    let Session::Target(target) = &mut *session else { return Err(wrong_role("target")) };
    target.check(call.base)?;
    target.forget();
    target.accept(&call.unverified).await?;
    target.target.decode(call.max).await.map_err(ApiError::from)?;
    let (lines, read) = mpsc::channel(BUFFER);
    let held = entry.clone();
    let task = tokio::spawn(async move {
        if !steps(&held, session, call.max, lines).await {
            // Where it stands now its caller cannot know.
            registry.remove(&held.id);
        }
    });
    entry.runs(task.abort_handle());
    let lines = stream::unfold(read, |mut read| async move {
        let line: Bytes = read.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), read))
    });
    Ok(([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// One line a step, until the decode is over; false when nobody reads any more.
async fn steps(
    entry: &Entry,
    mut session: OwnedMutexGuard<Session>,
    max: u32,
    lines: mpsc::Sender<Bytes>,
) -> bool {
    let Session::Target(session) = &mut *session else { return true };
    let (mut left, mut finished) = (max as usize, false);
    loop {
        // Whoever has every token may close the stream before its end.
        if left == 0 || finished {
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
                left = left.saturating_sub(verified.committed.len());
                finished = verified.finish.is_some();
                let (took, cost) = (verified.took, verified.cost);
                let mut step = session.commit(verified);
                // The caller measures the decode as a whole: it must know only what is not charged.
                if took != cost {
                    step.timed(took, cost);
                }
                step
            }
            Err(BackendError::Cancelled) => return false,
            Err(error) => Step { error: Some(error.to_string()), ..Step::default() },
        };
        let Ok(mut line) = seal(&step) else { return false };
        line.push(b'\n');
        if lines.send(line.into()).await.is_err() {
            return false;
        }
        if step.error.is_some() {
            return true;
        }
    }
}

pub(crate) async fn close(State(lent): State<Lent>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    lent.registry.remove(&id);
    Ok(StatusCode::NO_CONTENT)
}
