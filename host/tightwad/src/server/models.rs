//! `/v1/models`.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::ServerState;
use super::error::ApiError;

fn object(name: &str, created: u64) -> Value {
    json!({"id": name, "object": "model", "created": created, "owned_by": "tightwad"})
}

pub(super) async fn list(State(state): State<ServerState>) -> Json<Value> {
    let routes = state.table.current();
    let data: Vec<Value> = routes.names().map(|name| object(name, routes.created())).collect();
    Json(json!({"object": "list", "data": data}))
}

pub(super) async fn one(
    State(state): State<ServerState>,
    Path(model): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let routes = state.table.current();
    match routes.get(&model) {
        Some(_) => Ok(Json(object(&model, routes.created()))),
        None => Err(ApiError::unknown_model(&model, routes.names())),
    }
}
