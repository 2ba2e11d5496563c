//! `/v1/models`.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde_json::{Value, json};
use tightwad_core::SharedBackend;
use tightwad_net::http::ApiError;

use crate::keys::client::Client;
use crate::model_table::ServedModels;
use crate::state::ServerState;

/// The model `name`. A client sees a model that it may not use as a model that does not exist.
///
/// # Errors
///
/// An error that lists the models of the client.
pub(crate) fn find_model<'a>(
    models: &'a ServedModels,
    client: &Client,
    name: &str,
) -> Result<&'a SharedBackend, ApiError> {
    let backend = models.get(name).filter(|_| client.may_use(name));
    let usable = models.names().filter(|name| client.may_use(name));
    backend.ok_or_else(|| ApiError::unknown_model(name, usable))
}

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

pub(crate) async fn list(
    State(state): State<ServerState>,
    Extension(client): Extension<Client>,
) -> Json<Value> {
    let models = state.models.current();
    let object = |(name, backend)| object(name, backend, models.created_at());
    let data: Vec<Value> = models.iter().filter(|(name, _)| client.may_use(name)).map(object).collect();
    Json(json!({"object": "list", "data": data}))
}

pub(crate) async fn show(
    State(state): State<ServerState>,
    Extension(client): Extension<Client>,
    Path(model): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let models = state.models.current();
    let backend = find_model(&models, &client, &model)?;
    Ok(Json(object(&model, backend, models.created_at())))
}
