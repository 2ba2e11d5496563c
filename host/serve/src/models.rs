//! `/v1/models`.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tightwad_core::SharedBackend;
use tightwad_net::http::ApiError;

use crate::state::ServerState;

/// OpenAI's model object. Tokens of the context have the names that other servers give them: OpenRouter's and LM
/// Studio's `context_length`, and vLLM's `max_model_len`.
fn object(name: &str, backend: &SharedBackend, created: u64) -> Value {
    let mut object = json!({"id": name, "object": "model", "created": created, "owned_by": "tightwad"});
    if let Some(context) = backend.context() {
        object["context_length"] = context.into();
        object["max_model_len"] = context.into();
    }
    object
}

pub(crate) async fn list(State(state): State<ServerState>) -> Json<Value> {
    let routes = state.table.current();
    let object = |(name, backend)| object(name, backend, routes.created());
    let data: Vec<Value> = routes.iter().map(object).collect();
    Json(json!({"object": "list", "data": data}))
}

pub(crate) async fn one(
    State(state): State<ServerState>,
    Path(model): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let routes = state.table.current();
    match routes.get(&model) {
        Some(backend) => Ok(Json(object(&model, backend, routes.created()))),
        None => Err(ApiError::unknown_model(&model, routes.names())),
    }
}
