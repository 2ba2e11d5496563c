//! `/v1/models`.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tightwad_core::SharedBackend;
use tightwad_net::http::ApiError;

use crate::state::ServerState;

/// OpenAI's model object. The context length has the names of other servers: `context_length` (OpenRouter, LM
/// Studio) and `max_model_len` (vLLM).
fn object(name: &str, backend: &SharedBackend, created: u64) -> Value {
    let mut object = json!({"id": name, "object": "model", "created": created, "owned_by": "tightwad"});
    if let Some(context) = backend.context() {
        object["context_length"] = context.into();
        object["max_model_len"] = context.into();
    }
    object
}

pub(crate) async fn list(State(state): State<ServerState>) -> Json<Value> {
    let models = state.models.current();
    let object = |(name, backend)| object(name, backend, models.created_at());
    let data: Vec<Value> = models.iter().map(object).collect();
    Json(json!({"object": "list", "data": data}))
}

pub(crate) async fn show(
    State(state): State<ServerState>,
    Path(model): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let models = state.models.current();
    match models.get(&model) {
        Some(backend) => Ok(Json(object(&model, backend, models.created_at()))),
        None => Err(ApiError::unknown_model(&model, models.names())),
    }
}
