//! The two endpoints that generate, and `/health`.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::ServerState;
use super::body::{Body, Parsed};
use super::choices::Choices;
use super::error::ApiError;
use super::limit::BODY_LIMIT;
use super::reply::{self, Head};
use super::table::unix_seconds;

pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

pub(super) async fn chat(State(state): State<ServerState>, body: Result<Bytes, BytesRejection>) -> Response {
    answer(state, body, Body::chat).await.unwrap_or_else(IntoResponse::into_response)
}

pub(super) async fn completions(
    State(state): State<ServerState>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer(state, body, Body::completion).await.unwrap_or_else(IntoResponse::into_response)
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
    let parsed = parse(body, &id)?;
    let head = Head {
        id: format!("{}-{id}", parsed.shape.prefix()),
        created: unix_seconds(),
        model,
        shape: parsed.shape,
        tools: parsed.tools,
        usage: parsed.include_usage,
    };
    let choices = Choices::start(backend, parsed.requests);
    let job = reply::Job { head, choices, metrics: state.metrics.clone(), observation };
    if parsed.stream { reply::stream(job).await } else { reply::whole(job).await }
}

/// 128 random bits from the standard library's only source of them.
fn random_id() -> String {
    let half = || RandomState::new().hash_one(0_u8);
    format!("{:016x}{:016x}", half(), half())
}
