//! The HTTP client of a text server.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode};
use serde_json::Value;
use tightwad_core::{BackendError, Backoff, Device, Request, Token, root_cause, sync};
use tightwad_net::{authorized, server_client};

use crate::dialect::Dialect;
use crate::error::ConnectError;
use crate::spec::TextServerSpec;

/// The timeout of opening a connection. The timeout of the list of models is twice as long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum number of attempts of a call that does not reach the server.
const MAX_ATTEMPTS: u32 = 4;
/// The delay before the second and later attempts.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// The client of one model on a server.
pub(crate) struct Client {
    pub model: String,
    pub dialect: Dialect,
    url: String,
    api_key: Option<Token>,
    http: reqwest::Client,
    /// Moving average of the seconds per drafted token, and the overhead of a call in seconds. The first
    /// draft sets the overhead to its seconds per token. `None` before the first draft.
    timing: Mutex<Option<(f64, f64)>>,
}

impl Client {
    pub(crate) async fn connect(spec: &TextServerSpec) -> Result<Self, ConnectError> {
        let http = server_client(&spec.url).connect_timeout(CONNECT_TIMEOUT).build();
        let http = http.map_err(ConnectError::Client)?;
        let url = spec.url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut client = Self {
            model: spec.model.clone().unwrap_or_default(),
            dialect: spec.dialect,
            url,
            api_key: spec.api_key.clone(),
            http,
            timing: Mutex::default(),
        };
        let models = client.model_names().await?;
        match &spec.model {
            None if models.len() == 1 => client.model.clone_from(&models[0]),
            None => return Err(ConnectError::SeveralModels { url: client.url, models }),
            // Ollama's names can leave out the tag. A llama-server accepts every name.
            Some(requested) if client.dialect != Dialect::LlamaServer => {
                let is_requested =
                    |name: &String| name == requested || name.strip_suffix(":latest") == Some(requested);
                if !models.iter().any(is_requested) {
                    let model = requested.clone();
                    return Err(ConnectError::UnknownModel { url: client.url, model, models });
                }
            }
            Some(_) => {}
        }
        Ok(client)
    }

    async fn model_names(&self) -> Result<Vec<String>, ConnectError> {
        let request = self.authorized(self.http.get(format!("{}{}", self.url, self.dialect.models_path())));
        let no_reply = |source| ConnectError::NoReply { url: self.url.clone(), source };
        let response = request.timeout(CONNECT_TIMEOUT * 2).send().await.map_err(no_reply)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(ConnectError::Unauthorized { url: self.url.clone() });
        }
        let list: Value = response.json().await.map_err(no_reply)?;
        Ok(self.dialect.model_names(&list))
    }

    /// The device that the server computes on.
    pub(crate) fn device(&self) -> Device {
        Device::from_url(&self.url)
    }

    /// Starts the generation of a whole answer.
    pub(crate) async fn start_generation(&self, request: &Request) -> Result<Response, BackendError> {
        let (path, body) = crate::body::generation_request(self.dialect, &self.model, request);
        self.post(path, &body).await
    }

    /// Sends a call and reads its JSON reply.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Result<Value, BackendError> {
        let response = self.post(path, body).await?;
        response.json().await.map_err(|error| self.transport_error(&error))
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
            return Err(BackendError::failed(&self.url, format!("its reply has no text: {answer}")));
        };
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

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        authorized(request, self.api_key.as_ref())
    }

    /// Sends a call. Retries only connection failures, because then the server has not processed the call
    /// yet.
    async fn post(&self, path: &str, body: &Value) -> Result<Response, BackendError> {
        for failure in 0..MAX_ATTEMPTS - 1 {
            match self.send_once(path, body).await {
                Err(error) if error.is_connect() => {
                    tracing::info!(server = self.url, error = root_cause(&error), "retrying a call");
                    tokio::time::sleep(RETRY_BACKOFF.jittered_delay(failure)).await;
                }
                other => {
                    return self.check_status(other.map_err(|error| self.transport_error(&error))?).await;
                }
            }
        }
        self.check_status(self.send_once(path, body).await.map_err(|error| self.transport_error(&error))?)
            .await
    }

    async fn send_once(&self, path: &str, body: &Value) -> reqwest::Result<Response> {
        self.authorized(self.http.post(format!("{}{path}", self.url))).json(body).send().await
    }

    async fn check_status(&self, response: Response) -> Result<Response, BackendError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let error: Value = serde_json::from_str(&text).unwrap_or_default();
        let reason = error["error"]["message"].as_str().or(error["error"].as_str());
        let message = reason.unwrap_or(text.trim()).to_owned();
        Err(match status {
            StatusCode::BAD_REQUEST => BackendError::Invalid {
                message: format!("{}: {message}", self.model),
                parameter: None,
                code: None,
            },
            StatusCode::TOO_MANY_REQUESTS => BackendError::Busy { backend: self.url.clone(), message },
            _ => BackendError::failed(&self.url, format!("{status}: {message}")),
        })
    }

    pub(crate) fn transport_error(&self, error: &dyn std::error::Error) -> BackendError {
        BackendError::failed(&self.url, root_cause(error))
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
