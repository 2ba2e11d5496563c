use reqwest::Response;
use serde_json::{Value, json};
use tightwad_core::{BackendError, Token};
use tightwad_net::http::MAX_BODY_BYTES;

use crate::tests::fake::{FakeBackend, Server, state, text};

/// The status and the error object of a response.
pub(crate) async fn refusal(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let mut body: Value = response.json().await.unwrap();
    (status, body["error"].take())
}

pub(crate) fn error(kind: &str, message: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({"message": message, "type": kind, "param": param, "code": code})
}

async fn server() -> Server {
    Server::with_backend(FakeBackend::sending(|_| vec![text("Hi")])).await
}

#[tokio::test]
async fn error_names_the_invalid_field() {
    let server = server().await;
    let invalid = |message, param| (400, error("invalid_request_error", message, param, None));
    let actual = refusal(server.chat(json!({"temperature": 101})).await).await;
    assert_eq!(actual, invalid("temperature must be between 0 and 100, got 101", Some("temperature")));
    let actual = refusal(server.completion(json!({"echo": true})).await).await;
    assert_eq!(actual, invalid("'echo' is not supported", Some("echo")));
    let body = server
        .post("/v1/completions")
        .header("content-type", "application/json")
        .body("{\"model\":")
        .send()
        .await
        .unwrap();
    let (status, object) = refusal(body).await;
    assert_eq!((status, &object["param"]), (400, &Value::Null));
    let message = object["message"].as_str().unwrap();
    assert!(message.starts_with("the body is not valid JSON: "), "{message}");
}

#[tokio::test]
async fn backend_error_names_the_invalid_field() {
    let error_of_backend = BackendError::Invalid {
        message: "the prompt is too long".to_owned(),
        parameter: Some("messages"),
        code: Some("context_length_exceeded"),
    };
    let server = Server::with_backend(FakeBackend::failing(error_of_backend)).await;
    let code = Some("context_length_exceeded");
    let expected = error("invalid_request_error", "the prompt is too long", Some("messages"), code);
    assert_eq!(refusal(server.chat(json!({})).await).await, (400, expected));
}

#[tokio::test]
async fn unknown_model_error_lists_the_models() {
    let server = server().await;
    let message = "there is no model 'x'; this server has: m";
    let expected = error("invalid_request_error", message, Some("model"), Some("model_not_found"));
    assert_eq!(refusal(server.chat(json!({"model": "x"})).await).await, (404, expected.clone()));
    let response = server.get("/v1/models/x").send().await.unwrap();
    assert_eq!(refusal(response).await, (404, expected));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_errors() {
    let server = server().await;
    let message = "the path /v1/nothing does not exist; this server has /v1/chat/completions, /v1/completions, /v1/models, \
         /v1/tightwad/status, /health, /ready, /metrics";
    let actual = refusal(server.get("/v1/nothing").send().await.unwrap()).await;
    assert_eq!(actual, (404, error("invalid_request_error", message, None, None)));
    let message = "/v1/completions does not support this method";
    let actual = refusal(server.get("/v1/completions").send().await.unwrap()).await;
    assert_eq!(actual, (405, error("invalid_request_error", message, None, None)));
}

#[tokio::test]
async fn token_guards_everything_but_health() {
    let token = Token::new("secret").unwrap();
    let state = state(FakeBackend::sending(|_| vec![text("Hi")]), Some(token));
    let keys = state.keys().clone();
    let server = Server::start(state).await;
    let message = "the request has no API key; send 'Authorization: Bearer KEY'";
    let expected = error("invalid_request_error", message, None, Some("invalid_api_key"));
    assert_eq!(refusal(server.chat(json!({})).await).await, (401, expected));
    for path in ["/v1/models", "/metrics", "/v1/tightwad/status"] {
        assert_eq!(server.get(path).send().await.unwrap().status(), 401, "{path}");
        let wrong = server.get(path).bearer_auth("secrets").send().await.unwrap();
        assert_eq!(wrong.status(), 401, "{path}");
        let right = server.get(path).bearer_auth("secret").send().await.unwrap();
        assert_eq!(right.status(), 200, "{path}");
    }
    assert_eq!(server.get("/health").send().await.unwrap().status(), 200);
    keys.replace(Token::new("other").ok().into());
    let old = server.get("/v1/models").bearer_auth("secret").send().await.unwrap();
    assert_eq!(old.status(), 401);
}

#[tokio::test]
async fn large_body_is_refused() {
    let server = server().await;
    let body = vec![b' '; MAX_BODY_BYTES + 1];
    let expected = error("invalid_request_error", "the body is larger than 10 MB", None, None);
    let sized = server
        .post("/v1/completions")
        .header("content-type", "application/json")
        .body(body.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(refusal(sized).await, (413, expected));
}

#[tokio::test]
async fn overload_response_has_retry_after() {
    let busy = BackendError::Overloaded { backend: "fake".to_owned(), waiting: 3 };
    let server = Server::with_backend(FakeBackend::failing(busy)).await;
    for stream in [false, true] {
        let response = server.chat(json!({"stream": stream})).await;
        assert_eq!(response.headers()["retry-after"], "1");
        let message = "fake is overloaded: 3 requests are already waiting; try again later";
        let expected = error("rate_limit_error", message, None, Some("rate_limit_exceeded"));
        assert_eq!(refusal(response).await, (429, expected));
    }
}

#[tokio::test]
async fn backend_failure_is_a_server_error() {
    let server =
        Server::with_backend(FakeBackend::failing(BackendError::failed("fake", "out of luck"))).await;
    let expected = error("server_error", "fake failed: out of luck", None, None);
    assert_eq!(refusal(server.completion(json!({})).await).await, (503, expected));
}

#[tokio::test]
async fn backend_panic_fails_one_request_only() {
    let server = Server::with_backend(FakeBackend::sending(|request| match request.max_tokens {
        Some(13) => panic!("a defect"),
        _ => vec![text("Hi")],
    }))
    .await;
    let expected = error("server_error", "the server failed: a generation crashed", None, None);
    assert_eq!(refusal(server.chat(json!({"max_tokens": 13})).await).await, (503, expected));
    assert_eq!(server.chat(json!({})).await.status(), 200);
}
