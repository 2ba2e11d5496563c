use async_trait::async_trait;
use serde_json::{Value, json};
use tightwad_core::{Backend, BackendError, Generator, Outcome, Request, Sink};
use tokio::sync::mpsc;

use crate::tests::fake::{FakeBackend, Server, events, report, scored_event, text};

/// A chunk of a chat with one choice.
fn chunk(delta: Value, finish: Option<&str>) -> Value {
    let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
    let mut chunk = json!({
        "id": "chatcmpl-ID", "object": "chat.completion.chunk", "created": "NOW", "model": "m",
        "system_fingerprint": "VERSION", "choices": [choice],
    });
    if finish.is_some() {
        chunk["tightwad"] = report();
    }
    chunk
}

fn role() -> Value {
    chunk(json!({"role": "assistant", "content": ""}), None)
}

#[tokio::test]
async fn chat_streams_one_chunk_per_event() {
    let server = Server::with_backend(FakeBackend::sending(|_| vec![text("Hel"), text("lo")])).await;
    let expected = [
        role(),
        chunk(json!({"content": "Hel"}), None),
        chunk(json!({"content": "lo"}), None),
        chunk(json!({}), Some("stop")),
        "[DONE]".into(),
    ];
    assert_eq!(events(server.chat(json!({"stream": true})).await).await, expected);
}

#[tokio::test]
async fn requested_usage_is_the_last_chunk() {
    let server = Server::with_backend(FakeBackend::sending(|_| vec![text("Hi")])).await;
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let mut expected = [
        role(),
        chunk(json!({"content": "Hi"}), None),
        chunk(json!({}), Some("stop")),
        chunk(json!({}), None),
    ];
    expected.iter_mut().for_each(|chunk| chunk["usage"] = Value::Null);
    expected[3]["choices"] = json!([]);
    expected[3]["usage"] = json!({
        "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
    });
    let actual = events(server.chat(options).await).await;
    assert_eq!(actual[..4], expected);
    assert_eq!(actual[4..], ["[DONE]"]);
}

#[tokio::test]
async fn stream_without_text_has_a_role() {
    let server = Server::with_backend(FakeBackend::sending(|_| Vec::new())).await;
    let expected = [chunk(json!({}), Some("stop")), "[DONE]".into()];
    let actual = events(server.chat(json!({"stream": true})).await).await;
    assert_eq!(actual, [&[role()][..], &expected].concat());
}

#[tokio::test]
async fn completion_streams_log_probabilities() {
    let server =
        Server::with_backend(FakeBackend::sending(|_| vec![scored_event("hé"), scored_event("!")])).await;
    let chunk = |text: &str, logprobs: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish});
        json!({
            "id": "cmpl-ID", "object": "text_completion", "created": "NOW", "model": "m",
            "system_fingerprint": "VERSION", "choices": [choice],
        })
    };
    let logprobs = |token: &str, offset: u32| {
        let top = json!({token: -0.5, "no": -1.5});
        json!({"tokens": [token], "token_logprobs": [-0.5], "top_logprobs": [top], "text_offset": [offset]})
    };
    let mut last = chunk("", Value::Null, Some("stop"));
    last["tightwad"] = report();
    let expected =
        [chunk("hé", logprobs("hé", 0), None), chunk("!", logprobs("!", 2), None), last, "[DONE]".into()];
    assert_eq!(events(server.completion(json!({"stream": true, "logprobs": 2})).await).await, expected);
}

#[tokio::test]
async fn chat_log_probabilities_come_with_their_text() {
    let server = Server::with_backend(FakeBackend::sending(|_| vec![scored_event("a")])).await;
    let actual = events(server.chat(json!({"stream": true, "logprobs": true})).await).await;
    assert_eq!(actual[0]["choices"][0]["logprobs"], Value::Null, "the role has none");
    assert_eq!(actual[1]["choices"][0]["delta"], json!({"content": "a"}));
    assert_eq!(actual[1]["choices"][0]["logprobs"]["content"][0]["token"], "a");
}

#[tokio::test]
async fn tool_call_across_events_is_one_chunk() {
    let server = Server::with_backend(FakeBackend::sending(|_| {
        ["Look: <tool", "_call>{\"name\": \"f\",", " \"arguments\": {\"x\": 1}}</tool_", "call>\n"]
            .map(text)
            .to_vec()
    }))
    .await;
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let call = json!({
        "id": "call_ID", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}, "index": 0,
    });
    let expected = [
        role(),
        chunk(json!({"content": "Look: "}), None),
        chunk(json!({"tool_calls": [call]}), None),
        chunk(json!({}), Some("tool_calls")),
        "[DONE]".into(),
    ];
    assert_eq!(events(server.chat(json!({"stream": true, "tools": tools})).await).await, expected);
}

#[tokio::test]
async fn each_choice_has_a_role_and_a_finish_reason() {
    let server = Server::with_backend(FakeBackend::sending(|_| vec![text("x")])).await;
    let actual = events(server.chat(json!({"stream": true, "n": 2})).await).await;
    for index in 0..2 {
        let of_choice = |event: &&Value| event["choices"][0]["index"] == index;
        let choices: Vec<&Value> =
            actual.iter().filter(of_choice).map(|event| &event["choices"][0]).collect();
        assert_eq!(choices.len(), 3, "{choices:?}");
        assert_eq!(choices[0]["delta"]["role"], "assistant");
        assert_eq!(choices[1]["delta"], json!({"content": "x"}));
        assert_eq!(choices[2]["finish_reason"], "stop");
    }
    assert_eq!(actual.len(), 7);
    assert_eq!(actual[6], "[DONE]");
}

#[tokio::test]
async fn stream_error_comes_before_done() {
    let end = Err(BackendError::failed("fake", "out of luck"));
    let server = Server::with_backend(FakeBackend { events: |_| vec![text("Hi")], end }).await;
    let error = json!({"error": {
        "message": "fake failed: out of luck", "type": "server_error", "param": null, "code": null,
    }});
    let expected = [role(), chunk(json!({"content": "Hi"}), None), error, "[DONE]".into()];
    assert_eq!(events(server.chat(json!({"stream": true})).await).await, expected);
}

#[tokio::test]
async fn error_before_the_first_event_sets_the_status() {
    let server =
        Server::with_backend(FakeBackend::failing(BackendError::failed("fake", "out of luck"))).await;
    let response = server.chat(json!({"stream": true})).await;
    assert_eq!(response.status(), 503);
}

/// A backend that sends one event, and reports when it began and when the sink closed.
pub(crate) struct EndlessBackend(pub mpsc::UnboundedSender<&'static str>);

impl Backend for EndlessBackend {
    fn name(&self) -> &str {
        "endless"
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }
}

#[async_trait]
impl Generator for EndlessBackend {
    async fn generate(&self, _request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let reports = self.0.clone();
        sink.send(text("Hi")).await.map_err(|_| BackendError::Cancelled)?;
        tokio::spawn(async move {
            let _ = reports.send("began");
            sink.closed().await;
            let _ = reports.send("closed");
        });
        std::future::pending().await
    }
}

#[tokio::test]
async fn sink_closes_when_the_client_leaves_a_stream() {
    let (reports, mut reported) = mpsc::unbounded_channel();
    let server = Server::with_backend(EndlessBackend(reports)).await;
    let mut response = server.chat(json!({"stream": true})).await;
    assert!(response.chunk().await.unwrap().is_some());
    assert_eq!(reported.recv().await, Some("began"));
    assert!(reported.try_recv().is_err(), "the sink is open while the client reads");
    drop(response);
    assert_eq!(reported.recv().await, Some("closed"));
}

#[tokio::test]
async fn sink_closes_when_the_client_leaves_early() {
    let (reports, mut reported) = mpsc::unbounded_channel();
    let server = Server::with_backend(EndlessBackend(reports)).await;
    let request = server.post("/v1/completions").json(&json!({"model": "m", "prompt": "hi"}));
    let task = tokio::spawn(request.send());
    assert_eq!(reported.recv().await, Some("began"));
    task.abort();
    assert_eq!(reported.recv().await, Some("closed"));
}
