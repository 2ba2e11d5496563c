//! The routes of the endpoint.

use axum::Router;
use axum::http::Uri;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use tightwad_core::Right;
use tightwad_net::http::{ApiError, method_not_allowed};

use crate::auth::{Guard, authorize};
use crate::keys::route_access::RouteAccess;
use crate::state::ServerState;
use crate::{admin, handlers, models};

/// The routes that need a key, each with the access that it needs.
fn guarded_routes() -> [(RouteAccess, &'static str, MethodRouter<ServerState>); 7] {
    const CHAT: RouteAccess = RouteAccess::Right(Right::Chat);
    const MANAGE: RouteAccess = RouteAccess::Right(Right::Manage);
    const OBSERVE: RouteAccess = RouteAccess::Right(Right::Observe);
    // Names of models can contain slashes.
    [
        (RouteAccess::Generate, "/v1/chat/completions", post(handlers::chat)),
        (RouteAccess::Generate, "/v1/completions", post(handlers::completions)),
        (CHAT, "/v1/models", get(models::list)),
        (CHAT, "/v1/models/{*model}", get(models::show)),
        (OBSERVE, "/v1/tightwad/status", get(admin::status)),
        (OBSERVE, "/metrics", get(handlers::metrics)),
        (MANAGE, "/v1/tightwad/models/{*action}", post(admin::change_model)),
    ]
}

/// The paths that an unknown path is compared with.
const PATHS: [&str; 7] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/v1/tightwad/status",
    "/health",
    "/ready",
    "/metrics",
];

/// The routes of the endpoint. The door's layers are around them.
pub(crate) fn router(state: ServerState) -> Router {
    let guard = |access| from_fn_with_state(Guard { state: state.clone(), access }, authorize);
    let extra_routes = state.extra_routes.clone().unwrap_or_default();
    let mut routes = Router::new();
    for (access, path, methods) in guarded_routes() {
        routes = routes.route(path, methods.route_layer(guard(access)));
    }
    if let Some(further) = state.guarded_routes.clone() {
        routes = routes.merge(further.route_layer(guard(RouteAccess::AllRights)).with_state(()));
    }
    let routes = routes
        // Load balancers have no key.
        .route("/health", get(handlers::health))
        .route("/ready", get(handlers::ready))
        .fallback(async |uri: Uri| ApiError::unknown_path(&uri, &PATHS))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state);
    routes.merge(extra_routes)
}
