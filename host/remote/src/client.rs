//! The HTTP client of a text server.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tightwad_core::{BackendError, Backoff, Device, Request, Token, root_cause, sync};
use tightwad_net::{
    InvalidUrl, Reply, ReplyError, ReplyLimits, ServerUrl, authorized, excerpt, server_client,
};

use crate::dialect::Dialect;
use crate::error::ConnectError;
use crate::spec::TextServerSpec;

/// The timeout of opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The limits of the list of models. Some services list hundreds of models with long descriptions.
const MODEL_LIST_LIMITS: ReplyLimits = ReplyLimits::quick(8 << 20, Duration::from_secs(10));
/// The maximum time between two events of an answer.
pub(crate) const EVENT_TIMEOUT: Duration = Duration::from_secs(120);
/// The maximum time of a whole answer: a slow machine writes a long answer for hours.
const MAX_ANSWER_TIME: Duration = Duration::from_secs(24 * 3600);
/// The maximum length of a streamed answer with its JSON, in bytes, without log-probabilities. Each
/// alternative of the log-probabilities adds the same length.
const MAX_STREAM_BYTES: u64 = 64 << 20;
/// The maximum length of an answer that is not streamed, in bytes. vLLM reports a prompt with 100 bytes per
/// token.
const MAX_JSON_BYTES: u64 = 32 << 20;
/// The longest text of a token in bytes.
const MAX_TOKEN_BYTES: usize = 1024;
/// The length that is read of the body of an error, in bytes.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// The timeout of the body of an error.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum number of attempts of a call that does not reach the server.
const MAX_ATTEMPTS: u32 = 4;
/// The delay before the second and later attempts.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// The field that asks for token counts. Some servers refuse it.
const USAGE_FIELD: &str = "stream_options";

/// What is known about [`USAGE_FIELD`] on a server.
const USAGE_UNKNOWN: u8 = 0;
const USAGE_ACCEPTED: u8 = 1;
const USAGE_REFUSED: u8 = 2;

/// The client of one model on a server.
pub(crate) struct Client {
    /// The server's name in reports and errors.
    pub name: String,
    pub model: String,
    pub dialect: Dialect,
    pub first_token_timeout: Duration,
    url: ServerUrl,
    api_key: Option<Token>,
    http: reqwest::Client,
    usage_field: AtomicU8,
    /// Moving average of the seconds per drafted token, and the overhead of a call in seconds. The first
    /// draft sets the overhead to its seconds per token. `None` before the first draft.
    timing: Mutex<Option<(f64, f64)>>,
}

impl Client {
    pub(crate) async fn connect(spec: &TextServerSpec) -> Result<Self, ConnectError> {
        let url: ServerUrl = spec.url.parse()?;
        if url.is_encrypted() {
            return Err(InvalidUrl::Machine(url.to_string()).into());
        }
        // Ollama's own documentation names the address with `/api`.
        let url = if spec.dialect == Dialect::Ollama { url.without_segment("api") } else { url };
        let http = server_client(url.base()).connect_timeout(CONNECT_TIMEOUT).build();
        let mut client = Self {
            name: String::new(),
            model: spec.model.clone().unwrap_or_default(),
            dialect: spec.dialect,
            first_token_timeout: spec.first_token_timeout,
            url,
            api_key: spec.api_key.clone(),
            http: http.map_err(ConnectError::Client)?,
            usage_field: AtomicU8::new(USAGE_UNKNOWN),
            timing: Mutex::default(),
        };
        let (models, url) = (client.model_names().await?, client.url.to_string());
        match &spec.model {
            None if models.len() == 1 => client.model.clone_from(&models[0]),
            None => return Err(ConnectError::SeveralModels { url, models }),
            // Ollama's names can leave out the tag. A llama-server accepts every name.
            Some(requested) if client.dialect != Dialect::LlamaServer => {
                let is_requested =
                    |name: &String| name == requested || name.strip_suffix(":latest") == Some(requested);
                if !models.iter().any(is_requested) {
                    return Err(ConnectError::UnknownModel { url, model: requested.clone(), models });
                }
            }
            Some(_) => {}
        }
        client.name = spec.name.clone().unwrap_or_else(|| excerpt(&client.model, None));
        Ok(client)
    }

    async fn model_names(&self) -> Result<Vec<String>, ConnectError> {
        let no_reply = |reason: String| ConnectError::NoReply { url: self.url.to_string(), reason };
        let request = self.request(Method::GET, self.dialect.models_path());
        let reply = Reply::send(request, MODEL_LIST_LIMITS).await;
        let reply = reply.map_err(|error| no_reply(root_cause(&error)))?;
        match reply.status() {
            StatusCode::UNAUTHORIZED => {
                return Err(ConnectError::Unauthorized { url: self.url.to_string() });
            }
            status if !status.is_success() => {
                return Err(no_reply(format!("it answers {status} to a request for its models")));
            }
            _ => {}
        }
        let body = reply.bytes().await.map_err(|error| no_reply(root_cause(&error)))?;
        let list: Value = serde_json::from_slice(&body)
            .map_err(|error| no_reply(format!("its list of models is not JSON: {error}")))?;
        Ok(self.dialect.model_names(&list))
    }

    /// The device that the server computes on.
    pub(crate) fn device(&self) -> Device {
        Device::from_url(self.url.base())
    }

    /// Starts the generation of a whole answer.
    pub(crate) async fn start_generation(&self, request: &Request) -> Result<Reply, BackendError> {
        let (path, mut body) = crate::body::generation_request(self.dialect, &self.model, request);
        let logprobs = request.sampling.logprobs.map_or(0, |alternatives| 1 + u64::from(alternatives));
        let limits = self.answer_limits(MAX_STREAM_BYTES * (1 + logprobs));
        let mut without_usage = body.clone();
        let asks_usage = without_usage.as_object_mut().and_then(|body| body.remove(USAGE_FIELD)).is_some();
        let known = self.usage_field.load(Ordering::Relaxed);
        if asks_usage && known == USAGE_REFUSED {
            body = std::mem::take(&mut without_usage);
        }
        let reply = self.post(path, &body, limits).await;
        let (reply, found) = match reply {
            Err(error @ BackendError::Invalid { .. }) if asks_usage && known == USAGE_UNKNOWN => {
                let second = self.post(path, &without_usage, limits).await;
                (Ok(second.map_err(|_| error)?), USAGE_REFUSED)
            }
            Ok(reply) if known == USAGE_UNKNOWN => (Ok(reply), USAGE_ACCEPTED),
            reply => (reply, known),
        };
        self.usage_field.store(found, Ordering::Relaxed);
        reply
    }

    /// Sends a call and reads its JSON reply.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Result<Value, BackendError> {
        let reply = self.post(path, body, self.answer_limits(MAX_JSON_BYTES)).await?;
        let body = reply.bytes().await.map_err(|error| self.reply_error(&error))?;
        serde_json::from_slice(&body)
            .map_err(|error| BackendError::failed(&self.name, format!("its reply is not JSON: {error}")))
    }

    /// The limits of an answer. A server that reads a prompt can send headers or comments meanwhile, so the
    /// time between two parts is limited where events are read.
    fn answer_limits(&self, max_bytes: u64) -> ReplyLimits {
        let first_byte = self.first_token_timeout;
        ReplyLimits { max_bytes, first_byte, idle: first_byte.max(EVENT_TIMEOUT), total: MAX_ANSWER_TIME }
    }

    /// Continues `text` by up to `tokens` of the server's tokens. Returns the text, and the probabilities if
    /// the server reports them.
    pub(crate) async fn continue_text(
        &self,
        text: &str,
        tokens: u32,
    ) -> Result<(String, Vec<f32>), BackendError> {
        let (path, body) = self.dialect.continuation(&self.model, text, tokens);
        let start = Instant::now();
        let answer = self.post_json(path, &body).await?;
        let Some(continuation) = self.dialect.continuation_text(&answer) else {
            return Err(BackendError::failed(&self.name, "its reply has no text"));
        };
        if continuation.len() > (tokens as usize).saturating_mul(MAX_TOKEN_BYTES) {
            return Err(BackendError::failed(&self.name, "its reply has more text than the call asked for"));
        }
        self.record_timing(start.elapsed(), tokens);
        Ok((continuation.to_owned(), self.dialect.probabilities(&answer)))
    }

    /// The expected time per token, and the overhead of a call.
    pub(crate) fn expected_times(&self) -> (Duration, Duration) {
        let average = *sync::lock(&self.timing);
        // The first guess is optimistic: otherwise the drafter would never get its first call.
        let (token, call) = average.unwrap_or((0.003, 0.005));
        (Duration::from_secs_f64(token), Duration::from_secs_f64(call))
    }

    fn record_timing(&self, elapsed: Duration, tokens: u32) {
        let mut timing = sync::lock(&self.timing);
        let token = elapsed.as_secs_f64() / f64::from(tokens + 1);
        let (average, call) = timing.unwrap_or((token, token));
        *timing = Some((0.8 * average + 0.2 * token, call));
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        // An address such as `https://HOST/v1beta/openai` already names the version.
        let path = match path.strip_prefix("/v1") {
            Some(rest) if self.url.names_version() => rest,
            _ => path,
        };
        authorized(self.url.request(&self.http, method, path), self.api_key.as_ref())
    }

    /// Sends a call. Retries only connection failures, because then the server has not processed the call
    /// yet.
    async fn post(&self, path: &str, body: &Value, limits: ReplyLimits) -> Result<Reply, BackendError> {
        let mut failures = 0;
        loop {
            let sent = Reply::send(self.request(Method::POST, path).json(body), limits).await;
            match sent {
                Err(error) if error.is_connect() && failures + 1 < MAX_ATTEMPTS => {
                    tracing::info!(server = %self.url, error = root_cause(&error), "retrying a call");
                    tokio::time::sleep(RETRY_BACKOFF.jittered_delay(failures)).await;
                    failures += 1;
                }
                Err(error) => return Err(self.reply_error(&error)),
                Ok(reply) => return self.check_status(reply).await,
            }
        }
    }

    async fn check_status(&self, reply: Reply) -> Result<Reply, BackendError> {
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let body = reply.beginning(MAX_ERROR_BYTES, ERROR_BODY_TIMEOUT).await;
        let error: Value = serde_json::from_slice(&body).unwrap_or_default();
        let reason = error["error"]["message"].as_str().or(error["error"].as_str());
        let text = String::from_utf8_lossy(&body);
        let message = self.excerpt(reason.unwrap_or(&text));
        tracing::warn!(server = %self.url, %status, message, "a text server refused a call");
        Err(match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => BackendError::Invalid {
                message: format!("{}: {message}", self.name),
                parameter: None,
                code: None,
            },
            StatusCode::TOO_MANY_REQUESTS => BackendError::Busy { backend: self.name.clone(), message },
            _ => BackendError::failed(&self.name, format!("{status}: {message}")),
        })
    }

    /// A short form of a text that the server sent, for an error.
    pub(crate) fn excerpt(&self, text: &str) -> String {
        excerpt(text, self.api_key.as_ref())
    }

    fn reply_error(&self, error: &ReplyError) -> BackendError {
        let reason = root_cause(error);
        tracing::warn!(server = %self.url, reason, "a call to a text server failed");
        BackendError::failed(&self.name, reason)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::response::IntoResponse;
    use serde_json::json;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::fake_server::{FakeServer, streamed_response};

    #[tokio::test]
    async fn error_status_is_not_retried() {
        for status in
            [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::BAD_GATEWAY, StatusCode::TOO_MANY_REQUESTS]
        {
            let server = FakeServer::start(move || (status, "{\"error\":\"full\"}").into_response()).await;
            let client = server.client(Dialect::OpenAi).await;
            let error = client.start_generation(&Request::default()).await.unwrap_err();
            assert_eq!(server.requests().len(), 1, "{status}");
            let busy = matches!(&error, BackendError::Busy { message, .. } if message == "full");
            assert_eq!(busy, status == StatusCode::TOO_MANY_REQUESTS, "{error}");
        }
    }

    #[tokio::test]
    async fn broken_reply_is_not_retried() {
        let server = FakeServer::start(|| streamed_response(&[b"{\"content\""], true)).await;
        let client = server.client(Dialect::LlamaServer).await;
        assert!(client.post_json("/completion", &json!({})).await.is_err());
        assert_eq!(server.requests().len(), 1);
    }

    #[tokio::test]
    async fn connection_broken_before_the_reply_is_not_retried() {
        let server = FakeServer::start(|| streamed_response(&[], false)).await;
        let client = server.client(Dialect::OpenAi).await;
        let address = server.url.strip_prefix("http://").unwrap().to_owned();
        drop(server);
        let listener = bind_when_free(&address).await;
        static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                CONNECTIONS.fetch_add(1, Ordering::Relaxed);
                // The server may have processed this request.
                let _ = connection.read(&mut [0; 4096]).await;
            }
        });
        assert!(client.start_generation(&Request::default()).await.is_err());
        assert_eq!(CONNECTIONS.load(Ordering::Relaxed), 1);
    }

    /// The port becomes free when the server's task has ended.
    async fn bind_when_free(address: &str) -> TcpListener {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    #[tokio::test]
    async fn unreachable_server_is_retried() {
        let answer = || streamed_response(&[b"{\"content\":\"back\"}"], false);
        let server = FakeServer::start(answer).await;
        let client = server.client(Dialect::LlamaServer).await;
        let address = server.url.strip_prefix("http://").unwrap().to_owned();
        drop(server);
        drop(bind_when_free(&address).await);
        let back = async {
            // The first attempt fails before the server is back.
            tokio::time::sleep(Duration::from_millis(20)).await;
            FakeServer::start_on(bind_when_free(&address).await, answer)
        };
        let body = json!({"prompt": "x"});
        let (answered, server) = tokio::join!(client.post_json("/completion", &body), back);
        assert_eq!(answered.unwrap()["content"], "back");
        assert_eq!(server.requests(), [("/completion".to_owned(), body)]);
    }

    #[tokio::test]
    async fn model_must_be_listed_by_the_server() {
        let server = FakeServer::start(|| streamed_response(&[], false)).await;
        let other = TextServerSpec { model: Some("other".to_owned()), ..server.spec(Dialect::OpenAi) };
        let error = Client::connect(&other).await.err().unwrap();
        assert_eq!(error.to_string(), format!("{} has no model 'other'; it has: m", server.url));
        let ollama = TextServerSpec { model: Some("m".to_owned()), ..server.spec(Dialect::Ollama) };
        assert_eq!(Client::connect(&ollama).await.unwrap().model, "m");
    }
}
