//! `/v1/tightwad`: the server's status, and the models that people load and unload.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tightwad_net::http::ApiError;

use crate::control::Control;
use crate::state::ServerState;

/// `GET /v1/tightwad/status`.
pub(crate) async fn status(State(state): State<ServerState>) -> Json<Value> {
    let routes = state.table.current();
    let served: Vec<Value> = routes
        .iter()
        .map(|(name, backend)| {
            let load = backend.load();
            json!({"name": name, "backend": backend.name(), "active": load.active, "waiting": load.waiting})
        })
        .collect();
    let control = state.control.as_ref();
    let models = control.map(|control| control.status()).unwrap_or_default();
    let modes = control.map(|control| control.modes()).unwrap_or_default();
    let plugins = control.map(|control| control.plugins()).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({
        "tightwad": version, "serves": served, "models": models, "modes": modes, "plugins": plugins,
    }))
}

/// `POST /v1/tightwad/models/{model}/load`.
pub(crate) async fn load(
    State(state): State<ServerState>,
    Path(model): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let control = control(&state, &model)?;
    let loaded = control.load(&model).await.ok_or_else(|| unknown(control.as_ref(), &model))?;
    loaded?;
    Ok(Json(json!({"model": model, "state": "ready"})))
}

/// `POST /v1/tightwad/models/{model}/unload`.
pub(crate) async fn unload(
    State(state): State<ServerState>,
    Path(model): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let control = control(&state, &model)?;
    control.unload(&model).await.ok_or_else(|| unknown(control.as_ref(), &model))?;
    Ok(Json(json!({"model": model, "state": "unloaded"})))
}

fn control(state: &ServerState, model: &str) -> Result<Arc<dyn Control>, ApiError> {
    state.control.clone().ok_or_else(|| ApiError::unknown_model(model, std::iter::empty()))
}

fn unknown(control: &dyn Control, model: &str) -> ApiError {
    let known = control.status();
    ApiError::unknown_model(model, known.iter().filter_map(|status| status["model"].as_str()))
}
