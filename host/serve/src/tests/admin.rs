use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tightwad_core::{BackendError, SharedBackend};

use crate::control::Control;
use crate::model_table::ServedModels;
use crate::tests::fake::{FakeBackend, Server, state, text};

/// A host with the models `m` and `org/m`, which load, and `broken`, which does not.
struct FakeControl;

#[async_trait]
impl Control for FakeControl {
    fn status(&self) -> Vec<Value> {
        ["m", "broken", "org/m"].map(|model| json!({"model": model, "state": "unloaded"})).to_vec()
    }

    fn modes(&self) -> Vec<Value> {
        vec![json!({"mode": "plain", "name": "p"})]
    }

    fn plugins(&self) -> Vec<Value> {
        vec![json!({"name": "filter"})]
    }

    async fn load(&self, model: &str) -> Option<Result<(), BackendError>> {
        match model {
            "m" | "org/m" => Some(Ok(())),
            "broken" => Some(Err(BackendError::failed("broken", "no such file"))),
            _ => None,
        }
    }

    async fn unload(&self, model: &str) -> Option<()> {
        ["m", "org/m"].contains(&model).then_some(())
    }
}

async fn json(server: &Server, path: &str) -> Value {
    let response = server.get(path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

async fn post(server: &Server, path: &str) -> (u16, Value) {
    let response = server.post(path).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn model_list_has_context_lengths() {
    let server = Server::with_backend(FakeBackend::sending(|_| Vec::new())).await;
    let mut list = json(&server, "/v1/models").await;
    let created = list["data"][0]["created"].take();
    assert!(created.as_u64().unwrap() > 1_700_000_000);
    let object = json!({
        "id": "m", "object": "model", "created": null, "owned_by": "tightwad",
        "context_length": 2048, "max_model_len": 2048,
    });
    assert_eq!(list, json!({"object": "list", "data": [object]}));
    assert_eq!(json(&server, "/v1/models/m").await["created"], created);
}

#[tokio::test]
async fn status_lists_served_and_loadable_models() {
    let server =
        Server::start(state(FakeBackend::sending(|_| Vec::new()), None).with_control(Arc::new(FakeControl)))
            .await;
    let status = json(&server, "/v1/tightwad/status").await;
    let expected = json!({
        "tightwad": env!("CARGO_PKG_VERSION"),
        "serves": [{"name": "m", "backend": "fake", "active": 2, "waiting": 1, "health": "ready"}],
        "models": [{"model": "m", "state": "unloaded"}, {"model": "broken", "state": "unloaded"}, {"model": "org/m", "state": "unloaded"}],
        "modes": [{"mode": "plain", "name": "p"}], "plugins": [{"name": "filter"}],
        "keys": [],
    });
    assert_eq!(status, expected);
}

#[tokio::test]
async fn failing_model_has_its_reason_in_the_status_and_is_down_in_the_metrics() {
    let failure = || BackendError::failed("fake", "its engine does not restart");
    let server = Server::with_backend(FakeBackend::failing(failure())).await;
    let status = json(&server, "/v1/tightwad/status").await;
    assert_eq!(status["serves"][0]["health"], "failing");
    assert_eq!(server.get("/ready").send().await.unwrap().status(), 503);
    assert_eq!(status["serves"][0]["reason"], failure().to_string());
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("tightwad_model_up{model=\"m\"} 0"), "{metrics}");
    let failing = Arc::new(FakeBackend::failing(failure())) as SharedBackend;
    let ready = Arc::new(FakeBackend::sending(|_| Vec::new())) as SharedBackend;
    assert!(ServedModels::new([("a".to_owned(), failing.clone()), ("b".to_owned(), ready)]).is_ready());
    assert!(!ServedModels::new([("a".to_owned(), failing)]).is_ready());
}

#[tokio::test]
async fn models_are_loaded_and_unloaded() {
    let server =
        Server::start(state(FakeBackend::sending(|_| Vec::new()), None).with_control(Arc::new(FakeControl)))
            .await;
    let loaded = post(&server, "/v1/tightwad/models/m/load").await;
    assert_eq!(loaded, (200, json!({"model": "m", "state": "ready"})));
    let unloaded = post(&server, "/v1/tightwad/models/m/unload").await;
    assert_eq!(unloaded, (200, json!({"model": "m", "state": "unloaded"})));
    let (status, broken) = post(&server, "/v1/tightwad/models/broken/load").await;
    assert_eq!((status, &broken["error"]["message"]), (503, &json!("broken failed: no such file")));
    let (status, unknown) = post(&server, "/v1/tightwad/models/x/unload").await;
    assert_eq!(status, 404);
    assert_eq!(unknown["error"]["message"], "there is no model 'x'; this server has: m, broken, org/m");
    for name in ["org/m", "org%2Fm"] {
        let loaded = post(&server, &format!("/v1/tightwad/models/{name}/load")).await;
        assert_eq!(loaded, (200, json!({"model": "org/m", "state": "ready"})), "{name}");
    }
    assert_eq!(post(&server, "/v1/tightwad/models/m/burn").await.0, 404);
    let without = Server::with_backend(FakeBackend::sending(|_| Vec::new())).await;
    assert_eq!(post(&without, "/v1/tightwad/models/m/load").await.0, 404);
}

#[tokio::test]
async fn metrics_count_requests_and_tokens() {
    let server = Server::with_backend(FakeBackend::sending(|_| vec![text("Hi")])).await;
    assert_eq!(server.chat(json!({})).await.status(), 200);
    assert_eq!(server.chat(json!({"stream": true})).await.text().await.unwrap().lines().count(), 8);
    assert_eq!(server.chat(json!({"n": 0})).await.status(), 400);
    let response = server.get("/metrics").send().await.unwrap();
    let kind = response.headers()["content-type"].clone();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = response.text().await.unwrap();
    for line in [
        "tightwad_requests_total{model=\"m\",status=\"200\"} 2",
        "tightwad_requests_total{model=\"m\",status=\"400\"} 1",
        "tightwad_tokens_total{model=\"m\",kind=\"completion\"} 4",
        "tightwad_requests_in_flight 0",
        "tightwad_time_to_first_token_seconds_count{model=\"m\"} 2",
        "# EOF",
    ] {
        assert!(text.lines().any(|text_line| text_line == line), "{line} is missing in:\n{text}");
    }
}
