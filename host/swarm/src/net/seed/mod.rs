//! Serving what this machine has to peers. `host/PROTOCOL.md` explains every field.

use crate::net::seed::seeds::Seeds;

pub(crate) mod access;
pub(crate) mod data;
pub(crate) mod refusal;
pub(crate) mod routes;
pub(crate) mod seeds;
pub(crate) mod uploads;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tightwad_core::Token;
use tokio::net::{TcpListener, TcpStream};

use crate::net::limit::RateLimit;
use crate::net::seed::access::Access;
use crate::net::seed::uploads::Uploads;

/// Longest body of a question, in bytes.
const QUESTION: usize = 4 << 10;
/// Uploads to one address at the same time, by default.
const UPLOADS: usize = 8;
/// Uploads that are asked for at the same time.
const ALL_UPLOADS: usize = 256;
/// Uploads that run at the same time, by default: the fewer share an uplink, the sooner one is a piece that can
/// be passed on.
const TURNS: usize = 4;
/// Questions that wait for news at the same time; those beyond are answered at once.
const WAITING: usize = 1024;

/// What the handlers share; cheap to clone.
#[derive(Clone)]
pub struct SeedState {
    seeds: Arc<Seeds>,
    access: Arc<Access>,
    uploads: Arc<Uploads>,
    turns: Arc<tokio::sync::Semaphore>,
    waiting: Arc<tokio::sync::Semaphore>,
    limit: Option<Arc<RateLimit>>,
}

impl SeedState {
    /// Serves `seeds` to everybody.
    #[must_use]
    pub fn new(seeds: Arc<Seeds>) -> Self {
        Self {
            seeds,
            access: Arc::default(),
            uploads: Arc::new(Uploads::new(UPLOADS, ALL_UPLOADS)),
            turns: Arc::new(tokio::sync::Semaphore::new(TURNS)),
            waiting: Arc::new(tokio::sync::Semaphore::new(WAITING)),
            limit: None,
        }
    }

    /// Serves only those that `allows` says yes to, and that bring `token`, where there is one.
    #[must_use]
    pub fn guarded(
        mut self,
        token: Option<Token>,
        allows: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.access = Arc::new(Access::new(token, allows));
        self
    }

    /// At most `uploads` at the same time to one address.
    #[must_use]
    pub fn uploads(mut self, uploads: usize) -> Self {
        self.uploads = Arc::new(Uploads::new(uploads.max(1), ALL_UPLOADS));
        self
    }

    /// At most `turns` uploads run at the same time, to whomever; others wait a while for their turn.
    #[must_use]
    pub fn turns(mut self, turns: usize) -> Self {
        self.turns = Arc::new(tokio::sync::Semaphore::new(turns.clamp(1, ALL_UPLOADS)));
        self
    }

    /// All uploads together take no more than `limit`.
    #[must_use]
    pub fn limited(mut self, limit: Option<Arc<RateLimit>>) -> Self {
        self.limit = limit;
        self
    }
}

/// The routes below `/v1/swarm`. The server must be made with `into_make_service_with_connect_info`
/// ([`SocketAddr`]): without addresses nobody passes an allow list.
pub fn router(state: SeedState) -> Router {
    Router::new()
        .route("/v1/swarm", get(routes::list))
        .route("/v1/swarm/{root}/manifest", get(routes::manifest))
        .route("/v1/swarm/{root}/have", get(routes::have))
        .route("/v1/swarm/{root}/peers", post(routes::peers).layer(DefaultBodyLimit::max(QUESTION)))
        .route("/v1/swarm/{root}/data", get(data::data))
        .route_layer(from_fn_with_state(state.clone(), access::require_token))
        .route_layer(from_fn_with_state(state.clone(), access::require_address))
        .with_state(state)
}

/// Serves until `shutdown` completes.
///
/// # Errors
///
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    state: SeedState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    // Questions are small, and must not wait for the answer to the ones before.
    let listener = listener.tap_io(|connection: &mut TcpStream| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection cannot be set to send at once");
        }
    });
    let service = router(state).route("/health", get(async || "ok")).fallback(refusal::unknown_path);
    let serving = axum::serve(listener, service.into_make_service_with_connect_info::<SocketAddr>());
    // Whoever is being served goes on elsewhere.
    tokio::select! {
        done = serving => done,
        () = shutdown => Ok(()),
    }
}
