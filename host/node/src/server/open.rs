//! Opening sessions.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use tightwad_core::{BackendError, Left, Request, SharedBackend, Task};
use tightwad_net::http::ApiError;

use crate::protocol::calls::{OpenCall, Opened, Role};
use crate::server::body::{Raw, read, sealed};
use crate::server::lent::Lent;
use crate::server::state::{DrafterSession, Session, TargetSession};
use crate::server::tokens::{prompt_reader, tokenizer};

pub(crate) async fn open(
    State(lent): State<Lent>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    body: Raw,
) -> Result<Response, ApiError> {
    let call: OpenCall = read(body)?;
    let place = lent.registry.place(client.ip());
    let place = place.map_err(|error| ApiError::too_many(error.to_string()))?;
    let backend = lent.model(&call.model)?;
    let request = Request::try_from(call.request.clone());
    let request =
        Arc::new(request.map_err(|error| ApiError::invalid(Some(error.parameter), error.to_string()))?);
    let (session, opened) = match call.role {
        Role::Target => target(&backend, &request, &call).await?,
        Role::Drafter => drafter(&backend, &request, &call).await?,
    };
    Ok(sealed(&lent.register(&call, &backend, place, session, opened)))
}

/// Fields that are filled in when the session is registered.
fn opened(cached: u32, max_tokens: u32) -> Opened {
    Opened {
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
) -> Result<(Session, Opened), BackendError> {
    let left = left(request, call);
    let target = backend.target()?.open_target(request, left.as_ref()).await?;
    let mut opened = opened(target.cached, target.task.max_tokens);
    if left.is_none() {
        opened.tokens = target.task.prompt.to_vec();
        opened.text = target.task.text.to_string();
    }
    let session = TargetSession::new(target.session, &target.task.prompt, &call.output);
    Ok((Session::Target(session), opened))
}

/// Where the caller wants to go on, when it sent the prompt's tokens.
fn left(request: &Request, call: &OpenCall) -> Option<Left> {
    if call.tokens.is_empty() {
        return None;
    }
    let max_tokens = call.max_tokens.or(request.max_tokens).unwrap_or(u32::MAX);
    Some(Left { prompt: call.tokens.clone().into(), output: call.output.clone(), max_tokens })
}

async fn drafter(
    backend: &SharedBackend,
    request: &Arc<Request>,
    call: &OpenCall,
) -> Result<(Session, Opened), BackendError> {
    let task = match left(request, call) {
        None => prompt_reader(backend)?.read(request).await?,
        Some(left) => Task {
            request: request.clone(),
            prompt: left.prompt,
            text: "".into(),
            max_tokens: left.max_tokens,
            constraint: None,
            tokenizer: tokenizer(backend, "propose")?,
        },
    };
    let drafter = backend.drafter()?.open_drafter(&task).await?;
    let expected = drafter.expected();
    let mut opened = opened(0, task.max_tokens);
    opened.startup_ns = u64::try_from(expected.startup.as_nanos()).unwrap_or(u64::MAX);
    if call.tokens.is_empty() {
        opened.tokens = task.prompt.to_vec();
        opened.text = task.text.to_string();
    }
    Ok((Session::Drafter(DrafterSession::new(drafter, &task.prompt, &call.output)), opened))
}
