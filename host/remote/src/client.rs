//! The way to a text server.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode};
use serde_json::Value;
use tightwad_core::{BackendError, Backoff, Processor, Request, Token, innermost, sync};
use tightwad_net::{authorized, server_client};

use crate::dialect::Dialect;
use crate::error::ConnectError;
use crate::spec::TextServerSpec;

/// How long a connection may take to come about, and a list of models.
const CONNECT: Duration = Duration::from_secs(3);
/// Tries of a call that did not reach the server.
const TRIES: u32 = 4;
/// Before the second try and further ones.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// A server and one of its models.
pub(crate) struct Client {
    pub model: String,
    pub dialect: Dialect,
    url: String,
    token: Option<Token>,
    http: reqwest::Client,
    /// Seconds a drafted token took lately, and seconds besides.
    pace: Mutex<Option<(f64, f64)>>,
}

impl Client {
    pub(crate) async fn connect(spec: &TextServerSpec) -> Result<Self, ConnectError> {
        let http = server_client(&spec.url).connect_timeout(CONNECT).build();
        let http = http.map_err(ConnectError::Client)?;
        let url = spec.url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut client = Self {
            model: spec.model.clone().unwrap_or_default(),
            dialect: spec.dialect,
            url,
            token: spec.token.clone(),
            http,
            pace: Mutex::default(),
        };
        let models = client.names().await?;
        match &spec.model {
            None if models.len() == 1 => client.model.clone_from(&models[0]),
            None => return Err(ConnectError::SeveralModels { url: client.url, models }),
            // Ollama's names may leave out the tag; a llama-server answers to any name.
            Some(wanted) if client.dialect != Dialect::LlamaServer => {
                let same = |name: &String| name == wanted || name.strip_suffix(":latest") == Some(wanted);
                if !models.iter().any(same) {
                    let model = wanted.clone();
                    return Err(ConnectError::UnknownModel { url: client.url, model, models });
                }
            }
            Some(_) => {}
        }
        Ok(client)
    }

    async fn names(&self) -> Result<Vec<String>, ConnectError> {
        let asked = self.authorized(self.http.get(format!("{}{}", self.url, self.dialect.models())));
        let lost = |source| ConnectError::NoAnswer { url: self.url.clone(), source };
        let response = asked.timeout(CONNECT * 2).send().await.map_err(lost)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(ConnectError::Unauthorized { url: self.url.clone() });
        }
        let list: Value = response.json().await.map_err(lost)?;
        Ok(self.dialect.names(&list))
    }

    /// Where the server computes.
    pub(crate) fn processor(&self) -> Processor {
        Processor::of(&self.url)
    }

    /// Begins a whole answer.
    pub(crate) async fn begin(&self, request: &Request) -> Result<Response, BackendError> {
        let (path, body) = crate::body::whole(self.dialect, &self.model, request);
        self.post(path, &body).await
    }

    /// Asks, and reads the whole answer.
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> Result<Value, BackendError> {
        let response = self.post(path, body).await?;
        response.json().await.map_err(|error| self.lost(&error))
    }

    /// Continues `text` by up to `tokens` of the server's tokens: text, and probabilities where it says
    /// them.
    pub(crate) async fn complete(&self, text: &str, tokens: u32) -> Result<(String, Vec<f32>), BackendError> {
        let (path, body) = self.dialect.continuation(&self.model, text, tokens);
        let start = Instant::now();
        let answer = self.ask(path, &body).await?;
        let Some(drafted) = self.dialect.continued(&answer) else {
            return Err(BackendError::failed(&self.url, format!("it answered without a text: {answer}")));
        };
        self.paced(start.elapsed(), tokens);
        Ok((drafted.to_owned(), self.dialect.probabilities(&answer)))
    }

    /// How long a token takes, and what a call takes besides.
    pub(crate) fn pace(&self) -> (Duration, Duration) {
        let known = *sync::lock(&self.pace);
        // Optimistic until it was asked once: how else would it ever be.
        let (token, call) = known.unwrap_or((0.003, 0.005));
        (Duration::from_secs_f64(token), Duration::from_secs_f64(call))
    }

    fn paced(&self, took: Duration, tokens: u32) {
        let mut pace = sync::lock(&self.pace);
        let token = took.as_secs_f64() / f64::from(tokens + 1);
        let (known, call) = pace.unwrap_or((token, token));
        *pace = Some((0.8 * known + 0.2 * token, call));
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        authorized(request, self.token.as_ref())
    }

    /// Tries again where the server was not reached: then it has done nothing yet.
    async fn post(&self, path: &str, body: &Value) -> Result<Response, BackendError> {
        for failure in 0..TRIES - 1 {
            match self.sent(path, body).await {
                Err(error) if error.is_connect() => {
                    tracing::info!(server = self.url, error = innermost(&error), "trying again");
                    tokio::time::sleep(BACKOFF.jittered(failure)).await;
                }
                other => return self.checked(other.map_err(|error| self.lost(&error))?).await,
            }
        }
        self.checked(self.sent(path, body).await.map_err(|error| self.lost(&error))?).await
    }

    async fn sent(&self, path: &str, body: &Value) -> reqwest::Result<Response> {
        self.authorized(self.http.post(format!("{}{path}", self.url))).json(body).send().await
    }

    async fn checked(&self, response: Response) -> Result<Response, BackendError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let error: Value = serde_json::from_str(&text).unwrap_or_default();
        let told = error["error"]["message"].as_str().or(error["error"].as_str());
        let message = told.unwrap_or(text.trim()).to_owned();
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

    pub(crate) fn lost(&self, error: &dyn std::error::Error) -> BackendError {
        BackendError::failed(&self.url, innermost(error))
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
    use crate::fake_server::{FakeServer, stream_of};

    #[tokio::test]
    async fn a_server_that_was_reached_is_asked_once() {
        for status in
            [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::BAD_GATEWAY, StatusCode::TOO_MANY_REQUESTS]
        {
            let server = FakeServer::start(move || (status, "{\"error\":\"full\"}").into_response()).await;
            let client = server.client(Dialect::OpenAi).await;
            let error = client.begin(&Request::default()).await.unwrap_err();
            assert_eq!(server.asked().len(), 1, "{status}");
            let busy = matches!(&error, BackendError::Busy { message, .. } if message == "full");
            assert_eq!(busy, status == StatusCode::TOO_MANY_REQUESTS, "{error}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_not_asked_for_again() {
        let server = FakeServer::start(|| stream_of(&[b"{\"content\""], true)).await;
        let client = server.client(Dialect::LlamaServer).await;
        assert!(client.ask("/completion", &json!({})).await.is_err());
        assert_eq!(server.asked().len(), 1);
    }

    #[tokio::test]
    async fn a_connection_that_breaks_before_the_answer_is_not_tried_again() {
        let server = FakeServer::start(|| stream_of(&[], false)).await;
        let client = server.client(Dialect::OpenAi).await;
        let address = server.url.strip_prefix("http://").unwrap().to_owned();
        drop(server);
        let listener = bound(&address).await;
        static REACHED: AtomicUsize = AtomicUsize::new(0);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                REACHED.fetch_add(1, Ordering::Relaxed);
                // The request was read, and may have been acted on.
                let _ = connection.read(&mut [0; 4096]).await;
            }
        });
        assert!(client.begin(&Request::default()).await.is_err());
        assert_eq!(REACHED.load(Ordering::Relaxed), 1);
    }

    /// The port is free as soon as its server's task has ended.
    async fn bound(address: &str) -> TcpListener {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_was_not_reached_is_asked_again() {
        let answer = || stream_of(&[b"{\"content\":\"back\"}"], false);
        let server = FakeServer::start(answer).await;
        let client = server.client(Dialect::LlamaServer).await;
        let address = server.url.strip_prefix("http://").unwrap().to_owned();
        drop(server);
        drop(bound(&address).await);
        let back = async {
            // The first try fails meanwhile.
            tokio::time::sleep(Duration::from_millis(20)).await;
            FakeServer::start_on(bound(&address).await, answer)
        };
        let body = json!({"prompt": "x"});
        let (answered, server) = tokio::join!(client.ask("/completion", &body), back);
        assert_eq!(answered.unwrap()["content"], "back");
        assert_eq!(server.asked(), [("/completion".to_owned(), body)]);
    }

    #[tokio::test]
    async fn the_model_must_be_one_of_the_servers() {
        let server = FakeServer::start(|| stream_of(&[], false)).await;
        let other = TextServerSpec { model: Some("other".to_owned()), ..server.spec(Dialect::OpenAi) };
        let error = Client::connect(&other).await.err().unwrap();
        assert_eq!(error.to_string(), format!("{} has no model 'other'; it has: m", server.url));
        let ollama = TextServerSpec { model: Some("m".to_owned()), ..server.spec(Dialect::Ollama) };
        assert_eq!(Client::connect(&ollama).await.unwrap().model, "m");
    }
}
