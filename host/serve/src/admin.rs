//! `/v1/tightwad`: the server's status, and loading and unloading of models.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use serde::Serialize;
use serde_json::{Value, json};
use tightwad_core::{Health, Load};
use tightwad_net::http::ApiError;

use crate::control::Control;
use crate::state::ServerState;

/// The actions on models, for an unknown one.
const ACTION_PATHS: [&str; 2] = ["/v1/tightwad/models/{model}/load", "/v1/tightwad/models/{model}/unload"];

/// A served model in the status.
#[derive(Serialize)]
struct ModelStatus<'a> {
    name: &'a str,
    backend: &'a str,
    #[serde(flatten)]
    load: Load,
    #[serde(flatten)]
    health: Health,
}

/// `GET /v1/tightwad/status`.
pub(crate) async fn status(State(state): State<ServerState>) -> Json<Value> {
    let served = state.models.current();
    let serves: Vec<ModelStatus<'_>> = served
        .iter()
        .map(|(name, backend)| ModelStatus {
            name,
            backend: backend.name(),
            load: backend.load(),
            health: backend.health(),
        })
        .collect();
    let control = state.control.as_ref();
    let models = control.map(|control| control.status()).unwrap_or_default();
    let modes = control.map(|control| control.modes()).unwrap_or_default();
    let plugins = control.map(|control| control.plugins()).unwrap_or_default();
    let keys = state.keys.status();
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({
        "tightwad": version, "serves": serves, "models": models, "modes": modes, "plugins": plugins,
        "keys": keys,
    }))
}

/// `POST /v1/tightwad/models/{model}/load` and `.../unload`.
pub(crate) async fn change_model(
    State(state): State<ServerState>,
    Path(action): Path<String>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    match action.rsplit_once('/') {
        Some((model, "load")) => load(&state, model).await,
        Some((model, "unload")) => unload(&state, model).await,
        _ => Err(ApiError::unknown_path(&uri, &ACTION_PATHS)),
    }
}

async fn load(state: &ServerState, model: &str) -> Result<Json<Value>, ApiError> {
    let control = control(state, model)?;
    let loaded = control.load(model).await.ok_or_else(|| unknown_model(control.as_ref(), model))?;
    loaded?;
    Ok(Json(json!({"model": model, "state": "ready"})))
}

async fn unload(state: &ServerState, model: &str) -> Result<Json<Value>, ApiError> {
    let control = control(state, model)?;
    control.unload(model).await.ok_or_else(|| unknown_model(control.as_ref(), model))?;
    Ok(Json(json!({"model": model, "state": "unloaded"})))
}

fn control(state: &ServerState, model: &str) -> Result<Arc<dyn Control>, ApiError> {
    state.control.clone().ok_or_else(|| ApiError::unknown_model(model, std::iter::empty()))
}

fn unknown_model(control: &dyn Control, model: &str) -> ApiError {
    let models = control.status();
    ApiError::unknown_model(model, models.iter().filter_map(|status| status["model"].as_str()))
}
