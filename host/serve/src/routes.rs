//! The routes of the endpoint.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tightwad_net::http::{
    MAX_BODY_BYTES, method_not_allowed, panic_response, refuse_large_body, unknown_path,
};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

use crate::state::ServerState;
use crate::{admin, auth, handlers, models};

pub(crate) fn router(state: ServerState) -> Router {
    let guarded_routes = state.guarded_routes.clone().with_state(());
    let extra_routes = state.extra_routes.clone().unwrap_or_default();
    let routes = Router::new()
        .route("/v1/chat/completions", post(handlers::chat))
        .route("/v1/completions", post(handlers::completions))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{model}", get(models::show))
        .route("/v1/tightwad/status", get(admin::status))
        .route("/v1/tightwad/models/{model}/load", post(admin::load))
        .route("/v1/tightwad/models/{model}/unload", post(admin::unload))
        .route("/metrics", get(handlers::metrics))
        .merge(guarded_routes)
        // The token guards the routes above. `/health` needs no token.
        .route_layer(from_fn_with_state(state.clone(), auth::require_token))
        .route("/health", get(handlers::health))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(refuse_large_body))
        .layer(CatchPanicLayer::custom(panic_response))
        .layer(TraceLayer::new_for_http())
        .with_state(state);
    routes.merge(extra_routes)
}
