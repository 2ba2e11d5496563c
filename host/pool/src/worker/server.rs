//! The router of a worker. `host/book/src/protocols/worker.md` describes each path.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::http::Uri;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tightwad_net::door::{self, DoorConfig, Encryption, Shutdown};
use tightwad_net::http::{ApiError, method_not_allowed};
use tokio::net::TcpListener;

use crate::worker::routes::{self, MAX_SAMPLE_BYTES};
use crate::worker::state::WorkerState;

const INFO: &str = "/v1/worker";
const SINK: &str = "/v1/worker/sink";
const RPC: &str = "/v1/worker/rpc";

fn router(state: WorkerState) -> Router {
    Router::new()
        .route(INFO, get(routes::info))
        .route(SINK, post(routes::sink))
        .route(RPC, get(routes::rpc))
        .route_layer(from_fn_with_state(state.clone(), routes::require_token))
        .route("/health", get(async || "ok"))
        .route("/ready", get(async || "ok"))
        .fallback(async |uri: Uri| ApiError::unknown_path(&uri, &[INFO, SINK, RPC]))
        .method_not_allowed_fallback(method_not_allowed)
        // Outside of all routes: an address that is not allowed learns nothing, not even which paths exist.
        .layer(from_fn_with_state(state.clone(), routes::require_address))
        .with_state(state)
}

/// Serves hosts until `shutdown` completes. Open tunnels end with this process; their hosts continue without this
/// worker.
///
/// # Errors
///
/// Returns the listener's error.
pub async fn serve_worker(
    listener: TcpListener,
    state: WorkerState,
    encryption: Encryption,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let has_token = state.token.is_some();
    let config = DoorConfig {
        max_body_bytes: MAX_SAMPLE_BYTES,
        binary_paths: &[SINK],
        encryption,
        ..DoorConfig::new(move || has_token)
    };
    let shutdown = Shutdown::after(shutdown, Duration::ZERO);
    door::serve(listener, router(state), config, shutdown).await.map(drop)
}

#[cfg(test)]
mod tests {
    use reqwest::{Client, RequestBuilder, StatusCode};
    use serde_json::Value;
    use tightwad_engine::pool::{Device, MemoryBandwidth};
    use tightwad_net::AllowedNetwork;
    use tokio::task::JoinSet;

    use super::*;
    use crate::worker::service::{WorkerConfig, WorkerService};

    /// A worker without a token.
    struct TestWorker {
        http: Client,
        url: String,
        _serving: JoinSet<()>,
    }

    impl TestWorker {
        async fn start(allowed: Vec<AllowedNetwork>) -> Self {
            let (name, description) = ("CPU".to_owned(), "test".to_owned());
            let device =
                Device { name, description, free_bytes: 1 << 30, total_bytes: 1 << 30, is_gpu: false };
            let config =
                WorkerConfig { device, memory_bandwidth: MemoryBandwidth(1), threads: 1, memory: 1 << 30 };
            let state = WorkerState::new(WorkerService::new(config, None), None, allowed);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let mut serving = JoinSet::new();
            serving.spawn(async {
                serve_worker(listener, state, Encryption::default(), std::future::pending()).await.unwrap()
            });
            Self { http: tightwad_net::machine_client().build().unwrap(), url, _serving: serving }
        }

        fn get(&self, path: &str) -> RequestBuilder {
            self.http.get(format!("{}{path}", self.url))
        }

        fn sample(&self, content_type: &str, bytes: usize) -> RequestBuilder {
            let request = self.http.post(format!("{}{SINK}", self.url)).header("content-type", content_type);
            request.body(vec![0; bytes])
        }
    }

    #[tokio::test]
    async fn worker_stands_behind_the_door() {
        let worker = TestWorker::start(Vec::new()).await;
        for path in [INFO, "/health", "/ready", "//v1/worker/"] {
            assert_eq!(worker.get(path).send().await.unwrap().status(), StatusCode::OK, "{path}");
        }
        let rebound = worker.get(INFO).header("host", "evil.example").send().await.unwrap();
        assert_eq!(rebound.status(), StatusCode::MISDIRECTED_REQUEST);
        let foreign = worker.get(INFO).header("origin", "http://evil.example").send().await.unwrap();
        assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
        assert_eq!(
            worker.sample("text/plain", 10).send().await.unwrap().status(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        let missing: Value = worker.get("/v1/workers").send().await.unwrap().json().await.unwrap();
        assert_eq!(
            missing["error"]["message"],
            "the path /v1/workers does not exist; did you mean /v1/worker?"
        );
    }

    #[tokio::test]
    async fn sink_counts_bytes_up_to_its_limit() {
        let worker = TestWorker::start(Vec::new()).await;
        let ask = async |bytes| worker.sample("application/octet-stream", bytes).send().await.unwrap();
        assert_eq!(ask(11 << 20).await.json::<usize>().await.unwrap(), 11 << 20);
        assert_eq!(ask(MAX_SAMPLE_BYTES + 1).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn worker_reveals_no_path_to_addresses_that_it_refuses() {
        let worker = TestWorker::start(vec!["10.0.0.1".parse().unwrap()]).await;
        for path in [INFO, "/health", "/ready", "/no-such-path"] {
            assert_eq!(worker.get(path).send().await.unwrap().status(), StatusCode::FORBIDDEN, "{path}");
        }
        assert_eq!(
            worker.sample("application/octet-stream", 0).send().await.unwrap().status(),
            StatusCode::FORBIDDEN
        );
    }
}
