//! Paths.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

use super::{ServerState, auth, error, handlers, metrics, models};

/// Largest body, in bytes.
pub(super) const BODY_LIMIT: usize = 10 << 20;

pub(super) fn router(state: ServerState) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(handlers::chat))
        .route("/v1/completions", post(handlers::completions))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{model}", get(models::one))
        .route("/metrics", get(metrics::show))
        // The token guards everything above; whether the server lives is no secret.
        .route_layer(from_fn_with_state(state.clone(), auth::require_token))
        .route("/health", get(handlers::health))
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(TraceLayer::new_for_http())
        .with_state(state)
}
