//! Looking at workers: what they lend, and what the way to them is like.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use tightwad_core::{WorkerSpec, innermost};
use tightwad_engine::pool::RPC_PROTOCOL;
use tightwad_net::authorized;

use crate::worker::facts::{WORKER_PROTOCOL, WorkerFacts};

/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Answers of which the quickest is the round trip.
const LOOKS: u32 = 4;
/// Bytes sent to measure the link: the larger sample where the smaller one is over too soon.
const SAMPLES: [usize; 2] = [256 << 10, 8 << 20];
/// Below this, a sample says more of the machine than of the link.
const ENOUGH: Duration = Duration::from_millis(40);

/// What a look at a worker found.
#[derive(Debug, Clone)]
pub struct Found {
    /// What it says of itself.
    pub facts: WorkerFacts,
    /// The way there and back.
    pub round_trip: Duration,
    /// Bytes a second to it.
    pub bandwidth: u64,
}

/// Why a worker cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// It does not answer; it may later.
    #[error("{0}")]
    Lost(String),
    /// It answers, and cannot be used as it is.
    #[error("{0}")]
    Refused(String),
}

/// Looks at `worker`.
///
/// # Errors
///
/// [`Absent`], in one sentence that says how to mend it.
pub async fn survey(http: &Client, worker: &WorkerSpec) -> Result<Found, Absent> {
    let facts = facts(http, worker).await?;
    let mut round_trip = Duration::MAX;
    for _ in 0..LOOKS {
        let start = Instant::now();
        let asked = request(http, worker, Method::GET, "/health").send().await;
        asked.map_err(|error| lost(worker, &error))?;
        round_trip = round_trip.min(start.elapsed());
    }
    let mut bandwidth = 0;
    for bytes in SAMPLES {
        let start = Instant::now();
        let asked = request(http, worker, Method::POST, "/v1/worker/sink").body(vec![0; bytes]);
        let answer = asked.timeout(PATIENCE * 4).send().await;
        answer.map_err(|error| lost(worker, &error))?;
        let took = start.elapsed().saturating_sub(round_trip / 2);
        bandwidth = (bytes as f64 / took.as_secs_f64().max(1e-6)) as u64;
        if took >= ENOUGH {
            break;
        }
    }
    Ok(Found { facts, round_trip, bandwidth })
}

/// What `worker` says of itself: without measuring the way to it.
pub(crate) async fn facts(http: &Client, worker: &WorkerSpec) -> Result<WorkerFacts, Absent> {
    let refused =
        |what: String| Absent::Refused(format!("worker '{}' at {} {what}", worker.name, worker.url));
    let asked = request(http, worker, Method::GET, "/v1/worker").timeout(PATIENCE);
    let response = asked.send().await.map_err(|error| lost(worker, &error))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            return Err(refused(
                "does not take this token: give the one it was started with as `token`".into(),
            ));
        }
        StatusCode::FORBIDDEN => {
            return Err(refused(
                "does not lend to this machine: start it with --allow and this address".into(),
            ));
        }
        status => {
            return Err(refused(format!("is no worker ({status}): run `tightwad worker` there")));
        }
    }
    let facts = response.json::<WorkerFacts>().await;
    let facts =
        facts.map_err(|_| refused("is no worker of this version: run `tightwad worker` there".into()))?;
    let rpc = facts.rpc;
    if facts.protocol != WORKER_PROTOCOL || rpc.0 != RPC_PROTOCOL.0 || rpc.1 > RPC_PROTOCOL.1 {
        return Err(refused(format!(
            "runs tightwad {} with version {}.{} of llama.cpp's RPC; this host speaks {}.{}: update the older one",
            facts.tightwad, rpc.0, rpc.1, RPC_PROTOCOL.0, RPC_PROTOCOL.1
        )));
    }
    Ok(facts)
}

fn request(http: &Client, worker: &WorkerSpec, method: Method, path: &str) -> RequestBuilder {
    let request = http.request(method, format!("{}{path}", worker.url)).timeout(PATIENCE);
    authorized(request, worker.token.as_ref())
}

fn lost(worker: &WorkerSpec, error: &reqwest::Error) -> Absent {
    let (name, url, reason) = (&worker.name, &worker.url, innermost(error));
    if speaks_something_else(error) {
        return Absent::Refused(format!(
            "worker '{name}' at {url} is no worker ({reason}): run `tightwad worker` there, not llama.cpp's own rpc-server"
        ));
    }
    Absent::Lost(format!(
        "worker '{name}' at {url} does not answer ({reason}); is `tightwad worker` running there, and does this machine reach it?"
    ))
}

/// True when what came back is no HTTP.
fn speaks_something_else(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return true;
        }
        source = error.source();
    }
    false
}
