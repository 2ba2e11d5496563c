//! Paths.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tightwad_net::http::{BODY_LIMIT, panicked, refuse_large, unknown_path, wrong_method};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

use crate::state::ServerState;
use crate::{admin, auth, handlers, models};

pub(crate) fn router(state: ServerState) -> Router {
    let guarded = state.guarded.clone().with_state(());
    let beside = state.beside.clone().unwrap_or_default();
    let own = Router::new()
        .route("/v1/chat/completions", post(handlers::chat))
        .route("/v1/completions", post(handlers::completions))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{model}", get(models::one))
        .route("/v1/tightwad/status", get(admin::status))
        .route("/v1/tightwad/models/{model}/load", post(admin::load))
        .route("/v1/tightwad/models/{model}/unload", post(admin::unload))
        .route("/metrics", get(handlers::metrics))
        .merge(guarded)
        // The token guards everything above; whether the server lives is no secret.
        .route_layer(from_fn_with_state(state.clone(), auth::require_token))
        .route("/health", get(handlers::health))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn(refuse_large))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TraceLayer::new_for_http())
        .with_state(state);
    own.merge(beside)
}
