//! The handlers of the two endpoints that generate, `/health` and `/metrics`.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tightwad_net::http::{ApiError, MAX_BODY_BYTES};

use crate::body::checked;
use crate::body::checked::CheckedRequest;
use crate::body::fields::RequestBody;
use crate::choices::Choices;
use crate::model_table::unix_seconds;
use crate::reply::context::ResponseContext;
use crate::reply::meta::ResponseMeta;
use crate::reply::{non_streaming, stream};
use crate::state::ServerState;

pub(crate) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

pub(crate) async fn metrics(State(state): State<ServerState>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, OPEN_METRICS)], state.metrics.exposition())
}

pub(crate) async fn chat(State(state): State<ServerState>, body: Result<Bytes, BytesRejection>) -> Response {
    respond(state, body, checked::chat).await.unwrap_or_else(IntoResponse::into_response)
}

pub(crate) async fn completions(
    State(state): State<ServerState>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    respond(state, body, checked::completion).await.unwrap_or_else(IntoResponse::into_response)
}

async fn respond(
    state: ServerState,
    body: Result<Bytes, BytesRejection>,
    check: fn(RequestBody, &str) -> Result<CheckedRequest, ApiError>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(MAX_BODY_BYTES),
        _ => ApiError::invalid(None, rejection.body_text()),
    })?;
    let body = RequestBody::parse(&body)?;
    let models = state.models.current();
    let backend = models.get(&body.model);
    let backend = backend.ok_or_else(|| ApiError::unknown_model(&body.model, models.names()))?;
    let measurement = state.metrics.start_request(&body.model);
    let (model, id) = (body.model.clone(), random_id());
    let checked = check(body, &id)
        .inspect_err(|error| state.metrics.finish_request(&measurement, error.status().as_u16()))?;
    let meta = ResponseMeta {
        id: format!("{}-{id}", checked.endpoint.prefix()),
        created: unix_seconds(),
        model,
        endpoint: checked.endpoint,
        tools: checked.tools,
        usage: checked.include_usage,
    };
    let choices = Choices::start(backend, checked.requests);
    let context = ResponseContext { meta, choices, metrics: state.metrics.clone(), measurement };
    if checked.stream { stream::respond(context).await } else { non_streaming::respond(context).await }
}

/// 128 random bits from `RandomState`, the only source of randomness in the standard library.
fn random_id() -> String {
    let half = || RandomState::new().hash_one(0_u8);
    format!("{:016x}{:016x}", half(), half())
}
