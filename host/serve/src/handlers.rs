//! The handlers of the two endpoints that generate, `/health`, `/ready` and `/metrics`.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};
use tightwad_core::{Request, SharedBackend, random_hex};
use tightwad_net::http::ApiError;

use crate::admission::BodyShare;
use crate::body::checked;
use crate::body::checked::CheckedRequest;
use crate::body::fields::RequestBody;
use crate::choices::Choices;
use crate::keys::client::Client;
use crate::metrics::RequestMeasurement;
use crate::model_table::unix_seconds;
use crate::models::find_model;
use crate::reply::context::ResponseContext;
use crate::reply::meta::ResponseMeta;
use crate::reply::{non_streaming, stream};
use crate::state::ServerState;
use crate::token_count::TokenCount;

/// The random bytes of a request's id.
const REQUEST_ID_BYTES: usize = 16;

pub(crate) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// 200 while some model can answer. The door replies 503 during a shutdown. Clients without a token learn no names.
pub(crate) async fn ready(State(state): State<ServerState>) -> impl IntoResponse {
    let models = state.models.current();
    let (status, text) = match models.is_ready() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no model is ready"),
    };
    (status, Json(json!({"status": text, "models": models.names().count()})))
}

pub(crate) async fn metrics(State(state): State<ServerState>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, OPEN_METRICS)], state.metrics.exposition(&state.models.current()))
}

pub(crate) async fn chat(
    State(state): State<ServerState>,
    Extension(client): Extension<Client>,
    body: Body,
) -> Response {
    respond(state, client, body, checked::chat).await
}

pub(crate) async fn completions(
    State(state): State<ServerState>,
    Extension(client): Extension<Client>,
    body: Body,
) -> Response {
    respond(state, client, body, checked::completion).await
}

/// Checks a parsed body. The second argument is the id of the response.
type Check = fn(RequestBody, &str) -> Result<CheckedRequest, ApiError>;

/// A request before its model is known.
struct ParsedRequest {
    model: String,
    checked: Result<CheckedRequest, ApiError>,
}

/// A request that may use its backend.
struct AdmittedRequest {
    backend: SharedBackend,
    checked: CheckedRequest,
    model: String,
    id: String,
    share: BodyShare,
}

async fn respond(state: ServerState, client: Client, body: Body, check: Check) -> Response {
    let mut measurement = state.metrics.start_request();
    let admitted = match admit(&state, &client, body, check, &mut measurement).await {
        Ok(admitted) => admitted,
        Err(error) => {
            measurement.finish(error.status().as_u16());
            return error.into_response();
        }
    };
    let AdmittedRequest { backend, checked, model, id, share } = admitted;
    let meta = ResponseMeta {
        id: format!("{}-{id}", checked.endpoint.prefix()),
        created: unix_seconds(),
        model,
        endpoint: checked.endpoint,
        choices_per_prompt: checked.choices_per_prompt,
        tools: checked.tools,
        usage: checked.include_usage,
    };
    let tokens = TokenCount::new(&checked.requests, checked.choices_per_prompt);
    measurement.start_choices(tokens, client.key().cloned());
    let owner = client.key().map(|key| key.owner().clone());
    let requests = checked.requests.into_iter().map(|request| Request { owner: owner.clone(), ..request });
    let choices = Choices::start(&backend, requests.collect());
    let context =
        ResponseContext { meta, choices, measurement, shutdown: state.shutdown.clone(), _share: share };
    let response = match checked.stream {
        true => stream::respond(context).await,
        false => non_streaming::respond(context).await,
    };
    response.unwrap_or_else(IntoResponse::into_response)
}

/// Reads, parses and checks a request.
async fn admit(
    state: &ServerState,
    client: &Client,
    body: Body,
    check: Check,
    measurement: &mut RequestMeasurement,
) -> Result<AdmittedRequest, ApiError> {
    let body = state.admission.read(body).await?;
    let id = random_hex::<REQUEST_ID_BYTES>();
    let response_id = id.clone();
    let (parsed, share) = state.admission.parse(body, move |bytes| parse(bytes, check, &response_id)).await?;
    let ParsedRequest { model, checked } = parsed?;
    let models = state.models.current();
    let backend = find_model(&models, client, &model)?.clone();
    measurement.set_model(&model);
    Ok(AdmittedRequest { backend, checked: checked?, model, id, share })
}

fn parse(bytes: Vec<u8>, check: Check, id: &str) -> Result<ParsedRequest, ApiError> {
    let body = RequestBody::parse(&bytes)?;
    // The text must not stay in memory beside the checked request.
    drop(bytes);
    Ok(ParsedRequest { model: body.model.clone(), checked: check(body, id) })
}
