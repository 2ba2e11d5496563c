//! Plain decoding: a stream of steps.
//!
//! Invariant: the caller knows the session's position, or the session is closed. A decode whose reader leaves
//! or stalls therefore closes its session.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use tightwad_core::BackendError;
use tightwad_net::http::ApiError;
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use tokio::time::timeout;

use crate::protocol::calls::{DecodeCall, Step};
use crate::protocol::checksum::to_checked_json;
use crate::server::body::{RawBody, parse_body};
use crate::server::registry::{SessionEntry, closed};
use crate::server::service::NodeService;
use crate::server::sessions::{check_length, entry};
use crate::server::state::{Session, TargetSession};

/// The number of steps that wait for a slow reader before the decode pauses.
const STEP_BUFFER: usize = 64;
/// The time without a step after which the node sends an empty line. Proxies close idle connections, some of
/// them after 5 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// The headers of the stream. nginx collects a response before it passes it on, unless a header forbids it.
const STREAM_HEADERS: [(&str, &str); 3] =
    [("content-type", "application/x-ndjson"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")];

pub(crate) async fn decode(
    State(service): State<NodeService>,
    Path(id): Path<String>,
    body: RawBody,
) -> Result<Response, ApiError> {
    let call: DecodeCall = parse_body(body)?;
    let registry = service.registry.clone();
    let entry = entry(&service, &id)?;
    check_length(call.unverified.len(), entry.context)?;
    entry.touch();
    let session = entry.acquire().await?;
    let (lines, receiver) = mpsc::channel(STEP_BUFFER);
    let (started, start) = oneshot::channel();
    let task_entry = entry.clone();
    // The task also begins the decode: a caller that disconnects must not interrupt it between two steps.
    let task = tokio::spawn(async move {
        if !run(&task_entry, session, call, started, lines, registry.limits().stall_timeout).await {
            registry.remove(&task_entry.id);
        }
    });
    entry.set_running_call(task.abort_handle());
    start.await.unwrap_or_else(|_| Err(closed().into()))?;
    Ok((STREAM_HEADERS, Body::from_stream(keep_alive(receiver))).into_response())
}

/// The lines, and empty lines between them while no step arrives.
fn keep_alive(receiver: mpsc::Receiver<Bytes>) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(receiver, |mut receiver| async move {
        let line = match timeout(KEEP_ALIVE_INTERVAL, receiver.recv()).await {
            Ok(line) => line?,
            Err(_) => Bytes::from_static(b"\n"),
        };
        Some((Ok(line), receiver))
    })
}

/// Begins the decode, reports that to `started`, and sends the steps. Returns false if the caller does not know
/// the session's position.
async fn run(
    entry: &SessionEntry,
    mut session: OwnedMutexGuard<Session>,
    call: DecodeCall,
    started: oneshot::Sender<Result<(), ApiError>>,
    lines: mpsc::Sender<Bytes>,
    stall_timeout: Duration,
) -> bool {
    let session = match session.target() {
        Ok(session) => session,
        Err(error) => {
            // Only the caller misses the error.
            let _ = started.send(Err(error));
            return true;
        }
    };
    let begun = begin(session, &call).await;
    let failed = begun.is_err();
    if started.send(begun).is_err() || failed {
        return failed;
    }
    let steps = Steps { entry, session, lines, stall_timeout };
    steps.send(call.max_tokens as usize).await
}

async fn begin(session: &mut TargetSession, call: &DecodeCall) -> Result<(), ApiError> {
    session.check_position(call.position)?;
    session.drop_reply();
    session.accept(&call.unverified).await?;
    session.target.decode(call.max_tokens).await.map_err(ApiError::from)
}

/// The steps of a running decode.
struct Steps<'a> {
    entry: &'a SessionEntry,
    session: &'a mut TargetSession,
    lines: mpsc::Sender<Bytes>,
    stall_timeout: Duration,
}

impl Steps<'_> {
    /// Sends one line per step until the decode ends. Returns false if the reader disconnected or stalled.
    async fn send(mut self, max_tokens: usize) -> bool {
        let (mut remaining, mut finished) = (max_tokens, false);
        loop {
            // A caller that has every token can close the stream before its end.
            if remaining == 0 || finished {
                return matches!(self.session.target.step().await, Ok(None));
            }
            let step = tokio::select! {
                step = self.session.target.step() => step,
                () = self.lines.closed() => return false,
            };
            self.entry.touch();
            let step = match step {
                Ok(None) => return true,
                Ok(Some(verified)) => {
                    remaining = remaining.saturating_sub(verified.committed.len());
                    finished = verified.finish_reason.is_some();
                    let (elapsed, cost) = (verified.elapsed, verified.cost);
                    let mut step = self.session.commit(verified);
                    // The caller measures the whole decode, so it needs the times only if they differ.
                    if elapsed != cost {
                        step.set_times(elapsed, cost);
                    }
                    step
                }
                Err(BackendError::Cancelled) => return false,
                Err(error) => Step { error: Some(error.to_string()), ..Step::default() },
            };
            if !self.send_line(&step).await {
                return false;
            }
            if step.error.is_some() {
                return true;
            }
        }
    }

    async fn send_line(&mut self, step: &Step) -> bool {
        let Ok(mut line) = to_checked_json(step) else { return false };
        line.push(b'\n');
        match timeout(self.stall_timeout, self.lines.send(line.into())).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                let seconds = self.stall_timeout.as_secs();
                tracing::info!(session = self.entry.id, seconds, "closed a session whose reader stalled");
                false
            }
        }
    }
}
