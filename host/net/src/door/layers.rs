//! The layers between a connection and a server's routes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::Method;
use axum::http::header::RETRY_AFTER;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tower_http::trace::TraceLayer;

use crate::door::body;
use crate::door::config::DoorConfig;
use crate::door::shutdown::Shutdown;
use crate::door::web::{self, Caller};
use crate::http::error::{ApiError, panic_response};

/// The time for which a browser may keep the answer to a preflight.
const PREFLIGHT_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(600);

/// The path that answers as long as the process lives.
const HEALTH: &str = "/health";
/// The path that answers 200 while the server can do its work.
const READY: &str = "/ready";

/// Puts the layers around `router`, from the innermost to the outermost.
pub(crate) fn apply(router: Router, config: DoorConfig, bound: SocketAddr, shutdown: Shutdown) -> Router {
    let max_body_bytes = config.max_body_bytes;
    let guard = Arc::new(Guard { config, bound, shutdown });
    router
        // Handlers that buffer a body stop at the limit, which counts decompressed bytes.
        .layer(DefaultBodyLimit::max(max_body_bytes))
        // Before the server's own token check: a preflight has no token. One layer, because each costs an allocation
        // per request.
        .layer(from_fn_with_state(guard, admit))
        // A defect of a handler or a layer must not break the client's connection.
        .layer(CatchPanicLayer::custom(panic_response))
        // Last: its span covers every refusal.
        .layer(TraceLayer::new_for_http())
}

/// The state of [`admit`].
struct Guard {
    config: DoorConfig,
    bound: SocketAddr,
    shutdown: Shutdown,
}

impl Guard {
    fn check(&self, request: &Request) -> Result<Caller, ApiError> {
        let path = request.uri().path();
        if path == HEALTH {
            return Ok(Caller::Direct);
        }
        if self.shutdown.is_draining() {
            return Err(ApiError::shutting_down());
        }
        // Load balancers ask by any name.
        if path == READY {
            return Ok(Caller::Direct);
        }
        web::check(request, &self.config.web, self.bound, (self.config.is_authenticated)())
    }
}

/// Refuses requests of web pages that are not allowed, and new requests during a shutdown. The server does not read the
/// body of a request that it refuses.
async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let config = &guard.config;
    match guard.check(&request) {
        Ok(Caller::Direct) => body::receive(config, request, next).await,
        Ok(Caller::AllowedOrigin) => {
            let receive = service_fn(|request| {
                let next = next.clone();
                async move { Ok::<_, Infallible>(body::receive(config, request, next).await) }
            });
            let Ok(response) = cors().layer(receive).oneshot(request).await;
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Answers preflights, and lets the page of an allowed origin read the responses.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .allow_private_network(true)
        .expose_headers([RETRY_AFTER])
        .max_age(PREFLIGHT_MAX_AGE)
}
