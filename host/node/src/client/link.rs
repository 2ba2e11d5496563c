//! The way to a node: sealed messages over HTTP with keep-alive, tried again where that is safe.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tightwad_core::{BackendError, Backoff, CircuitBreaker, Clock, Processor, Token, innermost, sync};
use tightwad_net::{authorized, machine_client};

use crate::protocol::facts::NodeFacts;
use crate::protocol::seal::{seal, unseal};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(3);
/// A call that takes longer than this is watched: does the node still answer at all?
const WATCH_AFTER: Duration = Duration::from_secs(2);
/// How long a node may take to say that it lives.
const ALIVE: Duration = Duration::from_secs(2);
/// Signs of life missed in a row before a call is given up.
const MISSED: u32 = 3;
/// First and longest pause between two tries.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// Failures in a row after which a node is left alone.
const MAX_FAILURES: u32 = 3;
/// For how long.
const COOL_DOWN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));

/// What went wrong with a call, by what to do about it.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing, or nonsense, came back: the same call may be made again.
    Lost(String),
    /// The node lost the session, or stands elsewhere: open it again.
    OutOfStep(String),
    /// No other try would help.
    Refused(BackendError),
}

/// What happened on the way, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls made.
    pub calls: AtomicU64,
    /// Calls that brought nothing, or nonsense.
    pub lost: AtomicU64,
    /// Sessions opened again.
    pub resyncs: AtomicU64,
}

/// A node and the way there.
pub(crate) struct Link {
    /// Names the node in errors: `big at http://...`.
    pub name: String,
    /// Where the node computes.
    pub processor: Processor,
    url: String,
    token: Option<Token>,
    pub clock: Clock,
    /// Someone else watches whether the node lives.
    watched: bool,
    http: reqwest::Client,
    breaker: CircuitBreaker,
    /// The way there and back, as calls measured it.
    round_trip: Mutex<Option<Duration>>,
    pub counts: Counts,
}

impl Link {
    pub(crate) fn new(
        name: String,
        url: &str,
        token: Option<Token>,
        watched: Option<Processor>,
    ) -> Result<Self, reqwest::Error> {
        let http = machine_client()
            .connect_timeout(CONNECT)
            .tcp_keepalive(Duration::from_secs(15))
            .pool_idle_timeout(Duration::from_secs(50))
            .build()?;
        let url = url.trim_end_matches('/').to_owned();
        let (breaker, round_trip, counts) =
            (CircuitBreaker::new(MAX_FAILURES, COOL_DOWN), Mutex::default(), Counts::default());
        let (watched, processor) = (watched.is_some(), watched.unwrap_or_else(|| Processor::of(&url)));
        let clock = Clock::default();
        Ok(Self { name, processor, url, token, clock, watched, http, breaker, round_trip, counts })
    }

    /// What the node says of itself.
    pub(crate) async fn facts(&self) -> Result<NodeFacts, Fault> {
        let asked = self.request(Method::GET, "/v1/node").timeout(CONNECT + ALIVE);
        let response = self.checked(asked.send().await).await?;
        let body = response.bytes().await.map_err(|error| self.lost(&error))?;
        unseal(&body, true).map_err(|error| self.garbled(&error))
    }

    /// Makes one call. A node that no longer answers is noticed within seconds; one that lives may take
    /// up to `limit`: an answer may be lost although both ends live.
    pub(crate) async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        call: &Q,
        limit: Duration,
    ) -> Result<A, Fault> {
        self.admitted()?;
        let exchange = async {
            let response = self.checked(self.post(path, call)?.send().await).await?;
            let body = response.bytes().await.map_err(|error| self.lost(&error))?;
            unseal(&body, true).map_err(|error| self.garbled(&error))
        };
        let outcome = self.watched(exchange, limit).await;
        self.breaker.record(!matches!(outcome, Err(Fault::Lost(_))));
        outcome
    }

    /// Makes a call that is answered line by line.
    pub(crate) async fn stream<Q: Serialize>(
        &self,
        path: &str,
        call: &Q,
        limit: Duration,
    ) -> Result<Response, Fault> {
        self.admitted()?;
        let exchange = async { self.checked(self.post(path, call)?.send().await).await };
        let outcome = self.watched(exchange, limit).await;
        self.breaker.record(!matches!(outcome, Err(Fault::Lost(_))));
        outcome
    }

    /// Waits for `work`, which depends on the node, for as long as the node lives and `limit` lasts.
    pub(crate) async fn watched<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
        limit: Duration,
    ) -> Result<T, Fault> {
        if self.watched {
            return work.await;
        }
        tokio::select! {
            outcome = work => outcome,
            silent = self.silence() => Err(silent),
            () = tokio::time::sleep(limit) => {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                Err(Fault::Lost(format!("{}: no answer within {:.1} s", self.name, limit.as_secs_f64())))
            }
        }
    }

    /// Completes when the node has stopped to answer.
    async fn silence(&self) -> Fault {
        tokio::time::sleep(WATCH_AFTER).await;
        let mut missed = 0;
        loop {
            let asked = self.request(Method::GET, "/health").timeout(ALIVE).send().await;
            missed = if asked.is_ok_and(|answer| answer.status().is_success()) { 0 } else { missed + 1 };
            if missed >= MISSED {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                return Fault::Lost(format!("{} does not answer any more", self.name));
            }
            tokio::time::sleep(ALIVE / 2).await;
        }
    }

    /// Tells the node that a session is not needed any more; whether it hears it does not matter.
    pub(crate) fn close(&self, session: &str) {
        let asked = self.request(Method::DELETE, &format!("/v1/node/sessions/{session}")).timeout(ALIVE);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // An idle session expires by itself.
            runtime.spawn(async move { drop(asked.send().await) });
        }
    }

    /// Repeats `attempt` with growing pauses, as long as calls are lost and `patience` lasts.
    pub(crate) async fn patiently<T, F>(
        &self,
        patience: Duration,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut pause = Pause::new(patience);
        loop {
            match attempt().await {
                Err(Fault::Lost(reason)) => pause.wait(self, reason).await?,
                other => return other,
            }
        }
    }

    /// The way there and back; zero until it was measured.
    pub(crate) fn round_trip(&self) -> Duration {
        sync::lock(&self.round_trip).unwrap_or_default()
    }

    /// Notes a call that took `took`, `there` of it on the node. Queues on the way only make it longer:
    /// a shorter one is believed at once, a longer one slowly.
    pub(crate) fn measured(&self, took: Duration, there: Duration) {
        let way = took.saturating_sub(there);
        let mut known = sync::lock(&self.round_trip);
        *known = Some(known.map_or(way, |known| way.min(known.mul_f64(0.9) + way.mul_f64(0.1))));
    }

    /// True when someone else watches whether the node lives: it is a process of this machine.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched
    }

    /// True when the node answered lately, or was not asked.
    pub(crate) fn is_up(&self) -> bool {
        !self.breaker.is_open()
    }

    fn admitted(&self) -> Result<(), Fault> {
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        if self.breaker.allows() {
            return Ok(());
        }
        Err(Fault::Lost(format!("{} failed too often and is left alone for a moment", self.name)))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        authorized(request, self.token.as_ref())
    }

    fn post<Q: Serialize>(&self, path: &str, call: &Q) -> Result<RequestBuilder, Fault> {
        let body = seal(call).map_err(|error| Fault::Refused(BackendError::failed(&self.name, error)))?;
        Ok(self.request(Method::POST, path).body(body))
    }

    /// The response, where it is a good one.
    async fn checked(&self, sent: reqwest::Result<Response>) -> Result<Response, Fault> {
        let response = sent.map_err(|error| self.lost(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|error| self.lost(&error))?;
        let error: Value = serde_json::from_slice(&body).map_err(|error| self.garbled(&error))?;
        Err(self.refusal(status, &error["error"]))
    }

    fn refusal(&self, status: StatusCode, error: &Value) -> Fault {
        let message = error["message"].as_str().unwrap_or("it did not say why").to_owned();
        let code = error["code"].as_str();
        match status {
            StatusCode::CONFLICT => Fault::OutOfStep(message),
            StatusCode::BAD_REQUEST if code == Some("garbled") => Fault::Lost(message),
            StatusCode::BAD_REQUEST => Fault::Refused(BackendError::Invalid {
                message,
                parameter: known(&PARAMETERS, error["param"].as_str()),
                code: known(&CODES, code),
            }),
            StatusCode::TOO_MANY_REQUESTS => {
                Fault::Refused(BackendError::Busy { backend: self.name.clone(), message })
            }
            StatusCode::UNAUTHORIZED => {
                let message = "it does not take this token: give the one it was started with as `token`";
                Fault::Refused(BackendError::failed(&self.name, message))
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                Fault::Lost(format!("{}: {message}", self.name))
            }
            _ => Fault::Refused(BackendError::failed(&self.name, format!("{status}: {message}"))),
        }
    }

    pub(crate) fn lost(&self, error: &dyn std::error::Error) -> Fault {
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
        Fault::Lost(format!("{}: {}", self.name, innermost(error)))
    }

    pub(crate) fn garbled(&self, error: &impl ToString) -> Fault {
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
        Fault::Lost(format!("{} sent an answer that is none: {}", self.name, error.to_string()))
    }
}

/// The fault as a backend's error.
pub(crate) fn error(link: &Link, fault: Fault) -> BackendError {
    match fault {
        Fault::Refused(error) => error,
        Fault::Lost(reason) | Fault::OutOfStep(reason) => BackendError::failed(&link.name, reason),
    }
}

/// Fields of a request that a node may complain about.
const PARAMETERS: [&str; 7] =
    ["messages", "prompt", "max_tokens", "tools", "tool_choice", "response_format", "grammar"];
/// OpenAI's codes that a node may pass on.
const CODES: [&str; 1] = ["context_length_exceeded"];

fn known(all: &[&'static str], own: Option<&str>) -> Option<&'static str> {
    all.iter().copied().find(|one| Some(*one) == own)
}

/// Growing, jittered pauses, up to a point in time.
pub(crate) struct Pause {
    until: Instant,
    failures: u32,
    /// Others stand by: a node that is known to be down is not waited for.
    short: bool,
}

/// Patience below which others are taken to stand by.
const SHORT: Duration = Duration::from_secs(5);

impl Pause {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { until: Instant::now() + patience, failures: 0, short: patience < SHORT }
    }

    /// Waits before another try; the last `reason` when patience is over.
    pub(crate) async fn wait(&mut self, link: &Link, reason: String) -> Result<(), Fault> {
        // Hosts that lost the same node do not all come back at once.
        let delay = BACKOFF.jittered(self.failures);
        if Instant::now() + delay > self.until || (self.short && !link.is_up()) {
            return Err(Fault::Lost(reason));
        }
        tracing::info!(node = link.name, reason, "trying again");
        tokio::time::sleep(delay).await;
        self.failures += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_round_trip_is_believed_at_once_and_a_longer_one_slowly() {
        let link = Link::new("node".to_owned(), "http://127.0.0.1:1/", None, None).unwrap();
        assert_eq!(link.round_trip(), Duration::ZERO);
        for (took, there, known) in [(100, 20, 80), (30, 10, 20), (220, 100, 30), (10, 90, 0)] {
            link.measured(Duration::from_millis(took), Duration::from_millis(there));
            assert_eq!(link.round_trip().as_millis(), known, "{took} ms, {there} of them on the node");
        }
    }
}
