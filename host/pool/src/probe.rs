//! Probes workers: the memory that they lend, and the round trip and bandwidth of their links.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use tightwad_core::{WorkerSpec, root_cause};
use tightwad_engine::pool::RPC_PROTOCOL_VERSION;
use tightwad_net::authorized;

use crate::worker::info::{WORKER_PROTOCOL, WorkerInfo};

/// The maximum time until a worker answers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// The maximum time of one bandwidth sample.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(16);
/// The number of requests that measure the round trip. The fastest one counts.
const ROUND_TRIP_SAMPLES: u32 = 4;
/// The sizes of the bandwidth samples in bytes. The host sends the larger sample if the smaller one is too fast.
const BANDWIDTH_SAMPLES: [usize; 2] = [256 << 10, 8 << 20];
/// The minimum time of a bandwidth sample. A faster sample measures the machine more than the link.
const MIN_SAMPLE_TIME: Duration = Duration::from_millis(40);

/// A worker that the host can use.
#[derive(Debug, Clone)]
pub struct ProbedWorker {
    /// The worker's description of itself.
    pub info: WorkerInfo,
    /// The round trip of a request.
    pub round_trip: Duration,
    /// The bandwidth of the link to the worker in bytes per second.
    pub bandwidth: u64,
}

/// The reason why the host cannot use a worker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// The worker does not answer. A later attempt may succeed.
    #[error("{0}")]
    Unreachable(String),
    /// The worker answers, but its configuration or version must change.
    #[error("{0}")]
    Unusable(String),
}

/// Probes `worker`: requests its description, and measures its link.
///
/// # Errors
///
/// Returns a [`WorkerError`] whose message names the remedy.
pub async fn probe_worker(http: &Client, worker: &WorkerSpec) -> Result<ProbedWorker, WorkerError> {
    let info = worker_info(http, worker).await?;
    let mut round_trip = Duration::MAX;
    for _ in 0..ROUND_TRIP_SAMPLES {
        let start = Instant::now();
        let response = request(http, worker, Method::GET, "/health").send().await;
        response.map_err(|error| failure(worker, &error))?;
        round_trip = round_trip.min(start.elapsed());
    }
    let mut bandwidth = 0;
    for bytes in BANDWIDTH_SAMPLES {
        let start = Instant::now();
        let sample = request(http, worker, Method::POST, "/v1/worker/sink").body(vec![0; bytes]);
        let response = sample.timeout(SAMPLE_TIMEOUT).send().await;
        response.map_err(|error| failure(worker, &error))?;
        let elapsed = start.elapsed().saturating_sub(round_trip / 2);
        bandwidth = (bytes as f64 / elapsed.as_secs_f64().max(1e-6)) as u64;
        if elapsed >= MIN_SAMPLE_TIME {
            break;
        }
    }
    Ok(ProbedWorker { info, round_trip, bandwidth })
}

/// Requests the description of `worker` and checks its version. Does not measure the link.
pub(crate) async fn worker_info(http: &Client, worker: &WorkerSpec) -> Result<WorkerInfo, WorkerError> {
    let unusable = |problem: String| {
        WorkerError::Unusable(format!("worker '{}' at {} {problem}", worker.name, worker.url))
    };
    let request = request(http, worker, Method::GET, "/v1/worker");
    let response = request.send().await.map_err(|error| failure(worker, &error))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            return Err(unusable("does not accept this token: set `token` to the worker's token".into()));
        }
        StatusCode::FORBIDDEN => {
            return Err(unusable(
                "does not lend to this machine: start the worker with --allow and this machine's address"
                    .into(),
            ));
        }
        status => {
            return Err(unusable(format!("is not a worker ({status}): run `tightwad worker` there")));
        }
    }
    let info = response.json::<WorkerInfo>().await;
    let info = info.map_err(|_| {
        unusable(
            "does not answer as a worker of this version: run the same version of `tightwad worker` there"
                .into(),
        )
    })?;
    let rpc = info.rpc;
    if info.protocol != WORKER_PROTOCOL || rpc.0 != RPC_PROTOCOL_VERSION.0 || rpc.1 > RPC_PROTOCOL_VERSION.1 {
        return Err(unusable(format!(
            "runs tightwad {} with llama.cpp's RPC {}.{}; this host needs {}.{}: update the older one",
            info.tightwad, rpc.0, rpc.1, RPC_PROTOCOL_VERSION.0, RPC_PROTOCOL_VERSION.1
        )));
    }
    Ok(info)
}

fn request(http: &Client, worker: &WorkerSpec, method: Method, path: &str) -> RequestBuilder {
    let request = http.request(method, format!("{}{path}", worker.url)).timeout(REQUEST_TIMEOUT);
    authorized(request, worker.token.as_ref())
}

/// The error of a worker whose request failed.
fn failure(worker: &WorkerSpec, error: &reqwest::Error) -> WorkerError {
    let (name, url, reason) = (&worker.name, &worker.url, root_cause(error));
    if is_not_http(error) {
        return WorkerError::Unusable(format!(
            "worker '{name}' at {url} is not a worker ({reason}): run `tightwad worker` there, not llama.cpp's own rpc-server"
        ));
    }
    WorkerError::Unreachable(format!(
        "worker '{name}' at {url} does not answer ({reason}): check that `tightwad worker` runs there and that this machine can reach it"
    ))
}

/// True when the response is not HTTP.
fn is_not_http(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return true;
        }
        source = error.source();
    }
    false
}
