//! The way to a text server.

use tightwad_core::Backoff;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode};
use serde_json::Value;
use tightwad_core::{BackendError, Processor, Request, Token, innermost};
use tightwad_net::{authorized, server_client};

use crate::dialect::Dialect;
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
    pub(crate) async fn connect(spec: &TextServerSpec) -> Result<Self, String> {
        let http = server_client(&spec.url).connect_timeout(CONNECT).build();
        let http = http.map_err(|error| error.to_string())?;
        let url = spec.url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut client = Self {
            model: spec.model.clone().unwrap_or_default(),
            dialect: spec.dialect,
            url,
            token: spec.token.clone(),
            http,
            pace: Mutex::default(),
        };
        let names = client.names().await?;
        match &spec.model {
            None if names.len() == 1 => client.model.clone_from(&names[0]),
            None => {
                let known = names.join(", ");
                return Err(format!("{} has several models: choose one with `model`: {known}", client.url));
            }
            // Ollama's names may leave out the tag; a llama-server answers to any name.
            Some(wanted) if client.dialect != Dialect::LlamaServer => {
                let same = |name: &String| name == wanted || name.strip_suffix(":latest") == Some(wanted);
                if !names.iter().any(same) {
                    let known = names.join(", ");
                    return Err(format!("{} has no model '{wanted}'; it has: {known}", client.url));
                }
            }
            Some(_) => {}
        }
        Ok(client)
    }

    async fn names(&self) -> Result<Vec<String>, String> {
        let asked = self.authorized(self.http.get(format!("{}{}", self.url, self.dialect.models())));
        let lost = |error: reqwest::Error| {
            format!("{} does not answer: {}; is the server running there?", self.url, innermost(&error))
        };
        let response = asked.timeout(CONNECT * 2).send().await.map_err(lost)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(format!("{} wants its API key: give it as `token`", self.url));
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
        let known = *self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        // Optimistic until it was asked once: how else would it ever be.
        let (token, call) = known.unwrap_or((0.003, 0.005));
        (Duration::from_secs_f64(token), Duration::from_secs_f64(call))
    }

    fn paced(&self, took: Duration, tokens: u32) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
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
