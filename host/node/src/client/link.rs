//! Calls to one node: JSON messages with checksums over HTTP, with retries if a repeated call is safe.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tightwad_core::{BackendError, Backoff, CircuitBreaker, Clock, Device, Token, root_cause, sync};
use tightwad_net::{
    ClientError, MachineRequest, RemoteMachine, Reply, ReplyError, ReplyLimits, ServerUrl, excerpt,
};

use crate::protocol::checksum::{from_checked_json, to_checked_json};
use crate::protocol::facts::NodeFacts;

/// The timeout of opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum length of a node's facts in bytes.
const MAX_FACTS_BYTES: u64 = 1 << 20;
/// The maximum length of a reply in bytes. The largest ones have the tokens and the text of a long prompt.
const MAX_REPLY_BYTES: u64 = 64 << 20;
/// The maximum length of a decode's stream in bytes. The client keeps only its tokens.
const MAX_STREAM_BYTES: u64 = 1 << 30;
/// The length that is read of the body of an error, in bytes.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// The timeout of the body of an error.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Health checks begin after a call has taken this long.
const HEALTH_CHECK_DELAY: Duration = Duration::from_secs(2);
/// The timeout of a health check.
const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of consecutive failed health checks that fail the call.
const MAX_MISSED_HEALTH_CHECKS: u32 = 3;
/// The delay between two attempts of a call.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// The number of consecutive failures that open the circuit breaker.
const MAX_FAILURES: u32 = 3;
/// The time during which the circuit breaker stays open.
const COOLDOWN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));

/// The reason why a call failed. The variants differ in the action of the caller.
#[derive(Debug, Clone)]
pub(crate) enum CallError {
    /// No reply arrived, or an invalid one: the caller can repeat the call.
    Transient(String),
    /// The session does not exist, or is at another position: the caller must open it again.
    StaleSession(String),
    /// A retry cannot help.
    Refused(BackendError),
}

/// Counters of the calls to one node, for metrics.
#[derive(Debug, Default)]
pub struct NodeCounters {
    /// All calls.
    pub calls: AtomicU64,
    /// Calls without a valid reply.
    pub failed_calls: AtomicU64,
    /// Sessions that were opened again from the committed tokens.
    pub session_resyncs: AtomicU64,
}

/// The HTTP client of one node.
pub(crate) struct Link {
    /// The node's name in errors. Errors reach clients of the endpoint, so they name no address.
    pub name: String,
    /// The device that the node computes on.
    pub device: Device,
    pub machine: RemoteMachine,
    /// The token, which errors must not repeat.
    token: Option<Token>,
    pub clock: Clock,
    /// True if a supervisor of this process watches the node. Calls then need no timeouts and no health
    /// checks.
    supervised: bool,
    breaker: CircuitBreaker,
    /// The network round trip, estimated from calls.
    round_trip: Mutex<Option<Duration>>,
    pub counters: NodeCounters,
}

impl Link {
    pub(crate) fn new(
        name: String,
        url: ServerUrl,
        token: Option<Token>,
        supervised_device: Option<Device>,
    ) -> Result<Self, ClientError> {
        let machine = RemoteMachine::new(url, token.clone(), CONNECT_TIMEOUT)?;
        let (breaker, round_trip, counters) =
            (CircuitBreaker::new(MAX_FAILURES, COOLDOWN), Mutex::default(), NodeCounters::default());
        let (supervised, device) = (
            supervised_device.is_some(),
            supervised_device.unwrap_or_else(|| Device::from_url(machine.url.base())),
        );
        let clock = Clock::default();
        Ok(Self { name, device, machine, token, clock, supervised, breaker, round_trip, counters })
    }

    /// Fetches the node's facts.
    pub(crate) async fn facts(&self) -> Result<NodeFacts, CallError> {
        let request = self.request(Method::GET, "/v1/node").timeout(CONNECT_TIMEOUT + HEALTH_CHECK_TIMEOUT);
        self.parse(self.send(request, MAX_FACTS_BYTES).await?).await
    }

    /// Sends one call and reads its reply.
    ///
    /// Health checks detect within seconds that the node is down. A node that is up has `timeout` to reply,
    /// because a reply can be lost although both machines are up.
    pub(crate) async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        call: &Q,
        timeout: Duration,
    ) -> Result<A, CallError> {
        self.admit()?;
        let exchange = async { self.parse(self.send(self.post(path, call)?, MAX_REPLY_BYTES).await?).await };
        let outcome = self.while_alive(exchange, timeout).await;
        self.breaker.record(!matches!(outcome, Err(CallError::Transient(_))));
        outcome
    }

    /// Sends a call whose reply is a stream of lines.
    pub(crate) async fn stream<Q: Serialize>(
        &self,
        path: &str,
        call: &Q,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        self.admit()?;
        let exchange = async { self.send(self.post(path, call)?, MAX_STREAM_BYTES).await };
        let outcome = self.while_alive(exchange, timeout).await;
        self.breaker.record(!matches!(outcome, Err(CallError::Transient(_))));
        outcome
    }

    /// Waits for `work` until the node is down or `timeout` has passed.
    pub(crate) async fn while_alive<T>(
        &self,
        work: impl Future<Output = Result<T, CallError>>,
        timeout: Duration,
    ) -> Result<T, CallError> {
        if self.supervised {
            return work.await;
        }
        tokio::select! {
            outcome = work => outcome,
            failure = self.health_failure() => Err(failure),
            () = tokio::time::sleep(timeout) => {
                self.counters.failed_calls.fetch_add(1, Ordering::Relaxed);
                Err(CallError::Transient(format!("{}: no reply within {:.1} s", self.name, timeout.as_secs_f64())))
            }
        }
    }

    /// Completes when the node fails several health checks in a row.
    async fn health_failure(&self) -> CallError {
        tokio::time::sleep(HEALTH_CHECK_DELAY).await;
        let mut missed = 0;
        loop {
            let reply = self.request(Method::GET, "/health").timeout(HEALTH_CHECK_TIMEOUT).send().await;
            missed = if reply.is_ok_and(|reply| reply.status().is_success()) { 0 } else { missed + 1 };
            if missed >= MAX_MISSED_HEALTH_CHECKS {
                self.counters.failed_calls.fetch_add(1, Ordering::Relaxed);
                return CallError::Transient(format!("{} does not reply any more", self.name));
            }
            tokio::time::sleep(HEALTH_CHECK_TIMEOUT / 2).await;
        }
    }

    /// Asks the node to close a session, without waiting for the reply.
    pub(crate) fn close(&self, session: &str) {
        let request = self
            .request(Method::DELETE, &format!("/v1/node/sessions/{session}"))
            .timeout(HEALTH_CHECK_TIMEOUT);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // If the request fails, the idle session expires by itself.
            runtime.spawn(async move { drop(request.send().await) });
        }
    }

    /// Repeats `attempt` with backoff after transient errors, for at most `wait_timeout`.
    pub(crate) async fn with_retries<T, F>(
        &self,
        wait_timeout: Duration,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut retries = Retries::new(wait_timeout);
        loop {
            match attempt().await {
                Err(CallError::Transient(reason)) => retries.wait(self, reason).await?,
                other => return other,
            }
        }
    }

    /// The network round trip; zero before the first measurement.
    pub(crate) fn round_trip(&self) -> Duration {
        sync::lock(&self.round_trip).unwrap_or_default()
    }

    /// Updates the round trip from a call that took `elapsed`, of which the node spent `node_time`.
    ///
    /// Queues on the network only lengthen a round trip. A shorter measurement therefore replaces the
    /// estimate, and a longer one enters it with a weight of a tenth.
    pub(crate) fn record_round_trip(&self, elapsed: Duration, node_time: Duration) {
        let measured = elapsed.saturating_sub(node_time);
        let mut round_trip = sync::lock(&self.round_trip);
        *round_trip = Some(
            round_trip
                .map_or(measured, |estimate| measured.min(estimate.mul_f64(0.9) + measured.mul_f64(0.1))),
        );
    }

    /// True when a supervisor of this process watches the node: the node is a child process.
    pub(crate) fn is_supervised(&self) -> bool {
        self.supervised
    }

    /// True unless the circuit breaker is open.
    pub(crate) fn is_up(&self) -> bool {
        !self.breaker.is_open()
    }

    fn admit(&self) -> Result<(), CallError> {
        self.counters.calls.fetch_add(1, Ordering::Relaxed);
        if self.breaker.allows() {
            return Ok(());
        }
        Err(CallError::Transient(format!(
            "the last {MAX_FAILURES} calls failed; the next attempt follows after a short cooldown"
        )))
    }

    fn request(&self, method: Method, path: &str) -> MachineRequest {
        self.machine.request(method, path)
    }

    fn post<Q: Serialize>(&self, path: &str, call: &Q) -> Result<MachineRequest, CallError> {
        let body = to_checked_json(call)
            .map_err(|error| CallError::Refused(BackendError::failed(&self.name, error)))?;
        Ok(self.request(Method::POST, path).header(CONTENT_TYPE, "application/json").body(body))
    }

    /// Sends a request. The caller limits the time. Converts an error status to a [`CallError`].
    async fn send(&self, request: MachineRequest, max_bytes: u64) -> Result<Reply, CallError> {
        let reply = Reply::send_to_machine(request, ReplyLimits::bytes(max_bytes)).await;
        let reply = reply.map_err(|error| match &error {
            ReplyError::Connection(cause) if cause.is_refusal() => {
                CallError::Refused(BackendError::failed(&self.name, root_cause(cause)))
            }
            error => self.transport_error(error),
        })?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let body = reply.beginning(MAX_ERROR_BYTES, ERROR_BODY_TIMEOUT).await;
        // A proxy between the machines may send another body, so the status decides.
        let error: Value = serde_json::from_slice(&body).unwrap_or_default();
        Err(self.refusal(status, &error["error"]))
    }

    async fn parse<A: DeserializeOwned>(&self, reply: Reply) -> Result<A, CallError> {
        let body = reply.bytes().await.map_err(|error| self.transport_error(&error))?;
        from_checked_json(&body, true).map_err(|error| self.invalid_reply(&error))
    }

    fn refusal(&self, status: StatusCode, error: &Value) -> CallError {
        let message = excerpt(error["message"].as_str().unwrap_or("without a reason"), self.token.as_ref());
        let code = error["code"].as_str();
        match status {
            StatusCode::CONFLICT => CallError::StaleSession(message),
            StatusCode::BAD_REQUEST if code == Some("checksum_mismatch") => CallError::Transient(message),
            StatusCode::BAD_REQUEST => CallError::Refused(BackendError::Invalid {
                message,
                parameter: find_static(&REQUEST_FIELDS, error["param"].as_str()),
                code: find_static(&PASSED_ON_CODES, code),
            }),
            StatusCode::TOO_MANY_REQUESTS => {
                CallError::Refused(BackendError::Busy { backend: self.name.clone(), message })
            }
            StatusCode::UNAUTHORIZED => {
                let message = match self.token {
                    Some(_) => {
                        "it does not accept this token: set `token` to the one that it was started with"
                    }
                    None => {
                        "it needs a token: set `token` to the one that it was started with, or run `tightwad pair`"
                    }
                };
                CallError::Refused(BackendError::failed(&self.name, message))
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
                self.counters.failed_calls.fetch_add(1, Ordering::Relaxed);
                CallError::Transient(format!("{}: {message}", self.name))
            }
            _ => CallError::Refused(BackendError::failed(&self.name, format!("{status}: {message}"))),
        }
    }

    pub(crate) fn transport_error(&self, error: &dyn std::error::Error) -> CallError {
        self.counters.failed_calls.fetch_add(1, Ordering::Relaxed);
        CallError::Transient(format!("{}: {}", self.name, root_cause(error)))
    }

    pub(crate) fn invalid_reply(&self, error: &impl ToString) -> CallError {
        self.counters.failed_calls.fetch_add(1, Ordering::Relaxed);
        CallError::Transient(format!("{} sent an invalid reply: {}", self.name, error.to_string()))
    }
}

/// Converts a failed call to a backend's error.
pub(crate) fn backend_error(link: &Link, error: CallError) -> BackendError {
    match error {
        CallError::Refused(error) => error,
        CallError::Transient(reason) | CallError::StaleSession(reason) => {
            BackendError::failed(&link.name, reason)
        }
    }
}

/// Request fields that a node can name in an error.
const REQUEST_FIELDS: [&str; 8] =
    ["messages", "prompt", "max_tokens", "tools", "tool_choice", "response_format", "grammar", "logit_bias"];
/// OpenAI's error codes that a host passes on to its client.
const PASSED_ON_CODES: [&str; 1] = ["context_length_exceeded"];

fn find_static(known: &[&'static str], value: Option<&str>) -> Option<&'static str> {
    known.iter().copied().find(|entry| Some(*entry) == value)
}

/// Retries with jittered, exponential backoff until a deadline.
pub(crate) struct Retries {
    deadline: Instant,
    failures: u32,
    /// True if another target stands by. A call then does not wait for a node with an open circuit breaker.
    has_standby: bool,
}

/// The minimum wait timeout of a node without a standby. A shorter one shows that another target stands by.
const MIN_WAIT_WITHOUT_STANDBY: Duration = Duration::from_secs(5);

impl Retries {
    pub(crate) fn new(wait_timeout: Duration) -> Self {
        Self {
            deadline: Instant::now() + wait_timeout,
            failures: 0,
            has_standby: wait_timeout < MIN_WAIT_WITHOUT_STANDBY,
        }
    }

    /// Waits before the next attempt. Fails with `reason` when the deadline leaves no time for it.
    pub(crate) async fn wait(&mut self, link: &Link, reason: String) -> Result<(), CallError> {
        // Jitter: hosts that lost the same node must not reconnect at the same moment.
        let delay = RETRY_BACKOFF.jittered_delay(self.failures);
        if Instant::now() + delay > self.deadline || (self.has_standby && !link.is_up()) {
            return Err(CallError::Transient(reason));
        }
        tracing::info!(node = link.name, url = %link.machine.url, reason, "retrying a call");
        tokio::time::sleep(delay).await;
        self.failures += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_falls_immediately_and_rises_slowly() {
        let link = Link::new("node".to_owned(), "127.0.0.1:1".parse().unwrap(), None, None).unwrap();
        assert_eq!(link.round_trip(), Duration::ZERO);
        for (elapsed, node_time, expected) in [(100, 20, 80), (30, 10, 20), (220, 100, 30), (10, 90, 0)] {
            link.record_round_trip(Duration::from_millis(elapsed), Duration::from_millis(node_time));
            assert_eq!(
                link.round_trip().as_millis(),
                expected,
                "{elapsed} ms, {node_time} of them on the node"
            );
        }
    }
}
