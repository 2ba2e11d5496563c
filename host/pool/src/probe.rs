//! Probes workers: the memory that they lend, and the round trip and bandwidth of their links.

use std::time::{Duration, Instant};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tightwad_core::{WorkerSpec, printable, root_cause};
use tightwad_engine::pool::RPC_PROTOCOL_VERSION;
use tightwad_net::{MachineRequest, RemoteMachine, Reply, ReplyError, ReplyLimits, SendError};

use crate::worker::info::{WORKER_PROTOCOL, WorkerInfo};

/// The maximum time until a worker answers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// The maximum time of one bandwidth sample.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(16);
/// The number of requests that measure the round trip. The fastest one counts.
const ROUND_TRIP_SAMPLES: u32 = 4;
/// The sizes of the bandwidth samples in bytes. The host sends the larger sample if the smaller one is too fast.
const BANDWIDTH_SAMPLES: [usize; 2] = [256 << 10, 8 << 20];
/// The maximum length of a description in bytes.
const MAX_INFO_BYTES: u64 = 64 << 10;
/// The maximum length of a name in a description, in bytes.
const MAX_NAME_BYTES: usize = 200;
/// The maximum of each amount in a description. The placement policy adds amounts of several workers.
const MAX_AMOUNT: u64 = 1 << 50;
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
pub async fn probe_worker(machine: &RemoteMachine, worker: &WorkerSpec) -> Result<ProbedWorker, WorkerError> {
    let info = worker_info(machine, worker).await?;
    let mut round_trip = Duration::MAX;
    for _ in 0..ROUND_TRIP_SAMPLES {
        let start = Instant::now();
        let response = request(machine, Method::GET, "/health").send().await;
        response.map_err(|error| failure(worker, &error))?;
        round_trip = round_trip.min(start.elapsed());
    }
    let mut bandwidth = 0;
    for bytes in BANDWIDTH_SAMPLES {
        let start = Instant::now();
        let sample = request(machine, Method::POST, "/v1/worker/sink");
        let sample = sample.header(CONTENT_TYPE, "application/octet-stream").body(vec![0; bytes]);
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
pub(crate) async fn worker_info(
    machine: &RemoteMachine,
    worker: &WorkerSpec,
) -> Result<WorkerInfo, WorkerError> {
    let unusable = |problem: String| {
        WorkerError::Unusable(format!("worker '{}' at {} {problem}", worker.name, worker.url))
    };
    let request = request(machine, Method::GET, "/v1/worker");
    let limits = ReplyLimits::quick(MAX_INFO_BYTES, REQUEST_TIMEOUT);
    let reply =
        Reply::send_to_machine(request, limits).await.map_err(|error| reply_failure(worker, &error))?;
    match reply.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            return Err(unusable("does not accept this token: set `token` to the worker's token".into()));
        }
        StatusCode::UPGRADE_REQUIRED => {
            return Err(unusable(
                "is encrypted: use the address that it prints, which begins with tightwad://".into(),
            ));
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
    let body = reply.bytes().await.map_err(|error| reply_failure(worker, &error))?;
    parse_info(&body).map_err(unusable)
}

/// The versions in a description, which all versions of a worker have.
#[derive(Deserialize)]
struct WorkerVersion {
    tightwad: String,
    protocol: u32,
    rpc: (u8, u8),
}

/// Reads and checks a worker's description of itself. The error is the problem, for a message.
fn parse_info(body: &[u8]) -> Result<WorkerInfo, String> {
    let unknown = || {
        "does not answer as a worker of this version: run the same version of `tightwad worker` there"
            .to_owned()
    };
    let version: WorkerVersion = serde_json::from_slice(body).map_err(|_| unknown())?;
    let rpc = version.rpc;
    if version.protocol != WORKER_PROTOCOL
        || rpc.0 != RPC_PROTOCOL_VERSION.0
        || rpc.1 > RPC_PROTOCOL_VERSION.1
    {
        return Err(format!(
            "runs tightwad {} with llama.cpp's RPC {}.{}; this host needs {}.{}: update the older one",
            printable(&version.tightwad, MAX_NAME_BYTES),
            rpc.0,
            rpc.1,
            RPC_PROTOCOL_VERSION.0,
            RPC_PROTOCOL_VERSION.1
        ));
    }
    let mut info: WorkerInfo = serde_json::from_slice(body).map_err(|_| unknown())?;
    for text in [&mut info.tightwad, &mut info.device, &mut info.instance] {
        *text = printable(text, MAX_NAME_BYTES);
    }
    info.memory = info.memory.min(MAX_AMOUNT);
    info.free = info.free.min(info.memory);
    info.memory_bandwidth = info.memory_bandwidth.min(MAX_AMOUNT);
    Ok(info)
}

fn request(machine: &RemoteMachine, method: Method, path: &str) -> MachineRequest {
    machine.request(method, path).timeout(REQUEST_TIMEOUT)
}

/// The error of a worker whose reply cannot be read.
fn reply_failure(worker: &WorkerSpec, error: &ReplyError) -> WorkerError {
    match error {
        ReplyError::Connection(error) => failure(worker, error),
        ReplyError::TooLong(_) => WorkerError::Unusable(format!(
            "worker '{}' at {} is not a worker ({error}): run `tightwad worker` there",
            worker.name, worker.url
        )),
        _ => unreachable_worker(worker, &error.to_string()),
    }
}

/// The error of a worker whose request failed.
fn failure(worker: &WorkerSpec, error: &SendError) -> WorkerError {
    let (name, url, reason) = (&worker.name, &worker.url, root_cause(error));
    if error.is_refusal() {
        return WorkerError::Unusable(format!("worker '{name}' at {url}: {reason}"));
    }
    if is_not_http(error) {
        return WorkerError::Unusable(format!(
            "worker '{name}' at {url} is not a worker ({reason}): run `tightwad worker` there, not llama.cpp's own rpc-server"
        ));
    }
    unreachable_worker(worker, &reason)
}

fn unreachable_worker(worker: &WorkerSpec, reason: &str) -> WorkerError {
    WorkerError::Unreachable(format!(
        "worker '{}' at {} does not answer ({reason}): check that `tightwad worker` runs there and that this machine can reach it",
        worker.name, worker.url
    ))
}

/// True when the response is not HTTP.
fn is_not_http(error: &SendError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn description(rpc: (u8, u8), device: &str) -> Value {
        json!({
            "tightwad": "9.9.9", "protocol": WORKER_PROTOCOL, "rpc": rpc, "device": device, "gpu": false,
            "threads": 2, "memory": u64::MAX, "free": u64::MAX, "memory_bandwidth": u64::MAX, "cached": 0, "pools": 0,
        })
    }

    #[test]
    fn other_versions_are_refused_with_both_versions() {
        let (major, minor) = RPC_PROTOCOL_VERSION;
        for rpc in [(major - 1, minor), (major + 1, minor), (major, minor + 1)] {
            // Another version can have other fields.
            let body = json!({"tightwad": "9.9.9\n", "protocol": WORKER_PROTOCOL, "rpc": rpc}).to_string();
            let problem = parse_info(body.as_bytes()).unwrap_err();
            let versions = format!(
                "tightwad 9.9.9\\n with llama.cpp's RPC {}.{}; this host needs {major}.{minor}",
                rpc.0, rpc.1
            );
            assert!(problem.contains(&versions), "{problem}");
        }
        assert!(parse_info(b"{}").unwrap_err().contains("same version"));
    }

    #[test]
    fn description_is_limited() {
        let body = description(RPC_PROTOCOL_VERSION, &format!("\u{1b}[2J{}", "x".repeat(5000))).to_string();
        let info = parse_info(body.as_bytes()).unwrap();
        assert!(info.device.starts_with("\\u{1b}[2Jxx") && info.device.len() <= MAX_NAME_BYTES + 3);
        assert_eq!((info.memory, info.free, info.memory_bandwidth), (MAX_AMOUNT, MAX_AMOUNT, MAX_AMOUNT));
    }

    #[tokio::test]
    async fn endless_description_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move {
            let (mut host, _) = listener.accept().await.unwrap();
            assert!(host.read(&mut [0; 1024]).await.unwrap() > 0);
            host.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut sent = 0;
            // Ends when the host closes the connection.
            while host.write_all(&[b' '; 1024]).await.is_ok() {
                sent += 1024;
            }
            sent
        });
        let worker = WorkerSpec::new(&url, None, None).unwrap();
        let machine = RemoteMachine::new(worker.url.parse().unwrap(), None, REQUEST_TIMEOUT).unwrap();
        let error = worker_info(&machine, &worker).await.unwrap_err();
        assert!(matches!(&error, WorkerError::Unusable(text) if text.contains("65536 bytes")), "{error}");
        assert!(serving.await.unwrap() < 64 << 20);
    }
}
