//! Opens sessions.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use tightwad_core::{BackendError, PreparedRequest, Request, ResumePoint, SharedBackend};
use tightwad_net::http::ApiError;

use crate::protocol::calls::{OpenCall, OpenReply, SessionRole};
use crate::server::body::{RawBody, checked_response, parse_body};
use crate::server::service::{NodeService, max_session_tokens};
use crate::server::sessions::check_length;
use crate::server::state::{DrafterSession, Session, TargetSession};
use crate::server::tokens::{prompt_reader, tokenizer};

pub(crate) async fn open(
    State(service): State<NodeService>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    body: RawBody,
) -> Result<Response, ApiError> {
    let call: OpenCall = parse_body(body)?;
    let permit = service.registry.reserve(client.ip());
    let permit = permit.map_err(|error| ApiError::too_many_requests(error.to_string()))?;
    let backend = service.model(&call.model)?;
    check_length(call.tokens.len() + call.output.len(), max_session_tokens(&backend))?;
    let request = Request::try_from(call.request.clone());
    let request =
        Arc::new(request.map_err(|error| ApiError::invalid(Some(error.parameter), error.to_string()))?);
    let (session, opened) = match call.role {
        SessionRole::Target => target(&backend, &request, &call).await?,
        SessionRole::Drafter | SessionRole::Heads => drafter(&backend, &request, &call).await?,
    };
    Ok(checked_response(&service.register(&call, &backend, permit, session, opened)))
}

/// A reply without the fields that the registration sets.
fn unregistered_reply(cached: u32, max_tokens: u32) -> OpenReply {
    OpenReply {
        session: String::new(),
        weights: String::new(),
        tokens: Vec::new(),
        text: String::new(),
        cached,
        max_tokens,
        startup_ns: 0,
    }
}

async fn target(
    backend: &SharedBackend,
    request: &Arc<Request>,
    call: &OpenCall,
) -> Result<(Session, OpenReply), BackendError> {
    let resume_point = resume_point(request, call);
    let target = backend.target()?.open_target(request, resume_point.as_ref()).await?;
    let mut opened = unregistered_reply(target.cached_tokens, target.prepared.max_tokens);
    if resume_point.is_none() {
        opened.tokens = target.prepared.prompt.to_vec();
        opened.text = target.prepared.text.to_string();
    }
    let session = TargetSession::new(target.session, &target.prepared.prompt, &call.output);
    Ok((Session::Target(session), opened))
}

/// The resume point of the call, if the caller sent the prompt's tokens.
fn resume_point(request: &Request, call: &OpenCall) -> Option<ResumePoint> {
    if call.tokens.is_empty() {
        return None;
    }
    let max_tokens = call.max_tokens.or(request.max_tokens).unwrap_or(u32::MAX);
    Some(ResumePoint { prompt: call.tokens.clone().into(), output: call.output.clone(), max_tokens })
}

async fn drafter(
    backend: &SharedBackend,
    request: &Arc<Request>,
    call: &OpenCall,
) -> Result<(Session, OpenReply), BackendError> {
    let prepared = match resume_point(request, call) {
        None => prompt_reader(backend)?.prepare(request).await?,
        Some(resume_point) => PreparedRequest {
            request: request.clone(),
            prompt: resume_point.prompt,
            text: "".into(),
            max_tokens: resume_point.max_tokens,
            constraint: None,
            tokenizer: tokenizer(backend, "propose")?,
        },
    };
    let drafter = if call.role == SessionRole::Heads {
        let heads = backend.heads();
        let heads = heads.ok_or_else(|| BackendError::unsupported(backend.name(), "draft with heads"))?;
        heads.open_drafter(&prepared).await?
    } else {
        backend.drafter()?.open_drafter(&prepared).await?
    };
    let expected = drafter.expected_cost();
    let mut opened = unregistered_reply(0, prepared.max_tokens);
    opened.startup_ns = u64::try_from(expected.startup.as_nanos()).unwrap_or(u64::MAX);
    if call.tokens.is_empty() {
        opened.tokens = prepared.prompt.to_vec();
        opened.text = prepared.text.to_string();
    }
    Ok((Session::Drafter(DrafterSession::new(drafter, &prepared.prompt, &call.output)), opened))
}
