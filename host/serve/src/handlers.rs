//! The two endpoints that generate, `/health` and `/metrics`.

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
use tightwad_net::http::{ApiError, BODY_LIMIT};

use crate::body::fields::Body;
use crate::body::parsed;
use crate::body::parsed::Parsed;
use crate::choices::Choices;
use crate::reply::head::Head;
use crate::reply::job::Job;
use crate::reply::{stream, whole};
use crate::state::ServerState;
use crate::table::unix_seconds;

pub(crate) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

pub(crate) async fn metrics(State(state): State<ServerState>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, OPEN_METRICS)], state.metrics.exposition())
}

pub(crate) async fn chat(State(state): State<ServerState>, body: Result<Bytes, BytesRejection>) -> Response {
    answer(state, body, parsed::chat).await.unwrap_or_else(IntoResponse::into_response)
}

pub(crate) async fn completions(
    State(state): State<ServerState>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer(state, body, parsed::completion).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(
    state: ServerState,
    body: Result<Bytes, BytesRejection>,
    parse: fn(Body, &str) -> Result<Parsed, ApiError>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(BODY_LIMIT),
        _ => ApiError::invalid(None, rejection.body_text()),
    })?;
    let body = Body::read(&body)?;
    let routes = state.table.current();
    let backend = routes.get(&body.model);
    let backend = backend.ok_or_else(|| ApiError::unknown_model(&body.model, routes.names()))?;
    let observation = state.metrics.observe(&body.model);
    let (model, id) = (body.model.clone(), random_id());
    let parsed = parse(body, &id)
        .inspect_err(|error| state.metrics.answered(&observation, error.status().as_u16()))?;
    let head = Head {
        id: format!("{}-{id}", parsed.shape.prefix()),
        created: unix_seconds(),
        model,
        shape: parsed.shape,
        tools: parsed.tools,
        usage: parsed.include_usage,
    };
    let choices = Choices::start(backend, parsed.requests);
    let job = Job { head, choices, metrics: state.metrics.clone(), observation };
    if parsed.stream { stream::stream(job).await } else { whole::whole(job).await }
}

/// 128 random bits from the standard library's only source of them.
fn random_id() -> String {
    let half = || RandomState::new().hash_one(0_u8);
    format!("{:016x}{:016x}", half(), half())
}
