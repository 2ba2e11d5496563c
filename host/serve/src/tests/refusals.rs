use reqwest::Response;
use serde_json::{Value, json};
use tightwad_core::{BackendError, Token};
use tightwad_net::http::BODY_LIMIT;

use crate::tests::fake::{Fake, Server, state, text};

/// The status, and the error object.
async fn refusal(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let mut body: Value = response.json().await.unwrap();
    (status, body["error"].take())
}

fn error(kind: &str, message: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({"message": message, "type": kind, "param": param, "code": code})
}

async fn server() -> Server {
    Server::of(Fake::of(|_| vec![text("Hi")])).await
}

#[tokio::test]
async fn a_wrong_field_is_named() {
    let server = server().await;
    let invalid = |message, param| (400, error("invalid_request_error", message, param, None));
    let got = refusal(server.chat(json!({"temperature": 101})).await).await;
    assert_eq!(got, invalid("temperature must be between 0 and 100, got 101", Some("temperature")));
    let got = refusal(server.completion(json!({"echo": true})).await).await;
    assert_eq!(got, invalid("'echo' is not supported", Some("echo")));
    let body = server.post("/v1/completions").body("{\"model\":").send().await.unwrap();
    let (status, object) = refusal(body).await;
    assert_eq!((status, &object["param"]), (400, &Value::Null));
    let message = object["message"].as_str().unwrap();
    assert!(message.starts_with("the body is not valid JSON: "), "{message}");
}

#[tokio::test]
async fn a_backend_says_which_field_is_wrong() {
    let error_of_backend = BackendError::Invalid {
        message: "the prompt is too long".to_owned(),
        parameter: Some("messages"),
        code: Some("context_length_exceeded"),
    };
    let server = Server::of(Fake::failing(error_of_backend)).await;
    let code = Some("context_length_exceeded");
    let wanted = error("invalid_request_error", "the prompt is too long", Some("messages"), code);
    assert_eq!(refusal(server.chat(json!({})).await).await, (400, wanted));
}

#[tokio::test]
async fn an_unknown_model_is_answered_with_those_there_are() {
    let server = server().await;
    let message = "there is no model 'x'; this server has: m";
    let wanted = error("invalid_request_error", message, Some("model"), Some("model_not_found"));
    assert_eq!(refusal(server.chat(json!({"model": "x"})).await).await, (404, wanted.clone()));
    let one = server.get("/v1/models/x").send().await.unwrap();
    assert_eq!(refusal(one).await, (404, wanted));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_errors_too() {
    let server = server().await;
    let message = "nothing is served at /v1/nothing; try /v1/models";
    let got = refusal(server.get("/v1/nothing").send().await.unwrap()).await;
    assert_eq!(got, (404, error("invalid_request_error", message, None, None)));
    let message = "/v1/completions takes another method";
    let got = refusal(server.get("/v1/completions").send().await.unwrap()).await;
    assert_eq!(got, (405, error("invalid_request_error", message, None, None)));
}

#[tokio::test]
async fn the_token_guards_everything_but_health() {
    let token = Token::new("secret").unwrap();
    let state = state(Fake::of(|_| vec![text("Hi")]), Some(token));
    let current = state.token().clone();
    let server = Server::start(state).await;
    let message = "this endpoint wants its token: send 'Authorization: Bearer TOKEN'";
    let wanted = error("invalid_request_error", message, None, Some("invalid_api_key"));
    assert_eq!(refusal(server.chat(json!({})).await).await, (401, wanted));
    for path in ["/v1/models", "/metrics", "/v1/tightwad/status"] {
        assert_eq!(server.get(path).send().await.unwrap().status(), 401, "{path}");
        let wrong = server.get(path).bearer_auth("secrets").send().await.unwrap();
        assert_eq!(wrong.status(), 401, "{path}");
        let right = server.get(path).bearer_auth("secret").send().await.unwrap();
        assert_eq!(right.status(), 200, "{path}");
    }
    assert_eq!(server.get("/health").send().await.unwrap().status(), 200);
    current.replace(Some(Token::new("other").unwrap()));
    let old = server.get("/v1/models").bearer_auth("secret").send().await.unwrap();
    assert_eq!(old.status(), 401);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let server = server().await;
    let body = vec![b' '; BODY_LIMIT + 1];
    let wanted = error("invalid_request_error", "the body is larger than 10 MB", None, None);
    let sized = server.post("/v1/completions").body(body.clone()).send().await.unwrap();
    assert_eq!(refusal(sized).await, (413, wanted));
}

#[tokio::test]
async fn an_overloaded_backend_says_when_to_come_back() {
    let busy = BackendError::Overloaded { backend: "fake".to_owned(), waiting: 3 };
    let server = Server::of(Fake::failing(busy)).await;
    for stream in [false, true] {
        let response = server.chat(json!({"stream": stream})).await;
        assert_eq!(response.headers()["retry-after"], "1");
        let message = "fake is overloaded: 3 requests are already waiting; try again later";
        let wanted = error("rate_limit_error", message, None, Some("rate_limit_exceeded"));
        assert_eq!(refusal(response).await, (429, wanted));
    }
}

#[tokio::test]
async fn a_broken_backend_is_the_server_s_fault() {
    let server = Server::of(Fake::failing(BackendError::failed("fake", "out of luck"))).await;
    let wanted = error("server_error", "fake failed: out of luck", None, None);
    assert_eq!(refusal(server.completion(json!({})).await).await, (503, wanted));
}

#[tokio::test]
async fn a_backend_that_panics_costs_one_request_only() {
    let server = Server::of(Fake::of(|request| match request.max_tokens {
        Some(13) => panic!("a defect"),
        _ => vec![text("Hi")],
    }))
    .await;
    let wanted = error("server_error", "the server failed: a generation crashed", None, None);
    assert_eq!(refusal(server.chat(json!({"max_tokens": 13})).await).await, (503, wanted));
    assert_eq!(server.chat(json!({})).await.status(), 200);
}
