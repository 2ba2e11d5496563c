use async_trait::async_trait;
use serde_json::{Value, json};
use tightwad_core::{Backend, BackendError, Generator, Outcome, Request, Sink};
use tokio::sync::mpsc;

use crate::tests::fake::{Fake, Server, events, report, scored, text};

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
async fn a_chat() {
    let server = Server::of(Fake::of(|_| vec![text("Hel"), text("lo")])).await;
    let wanted = [
        role(),
        chunk(json!({"content": "Hel"}), None),
        chunk(json!({"content": "lo"}), None),
        chunk(json!({}), Some("stop")),
        "[DONE]".into(),
    ];
    assert_eq!(events(server.chat(json!({"stream": true})).await).await, wanted);
}

#[tokio::test]
async fn usage_comes_last_where_it_was_asked_for() {
    let server = Server::of(Fake::of(|_| vec![text("Hi")])).await;
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let mut wanted = [
        role(),
        chunk(json!({"content": "Hi"}), None),
        chunk(json!({}), Some("stop")),
        chunk(json!({}), None),
    ];
    wanted.iter_mut().for_each(|chunk| chunk["usage"] = Value::Null);
    wanted[3]["choices"] = json!([]);
    wanted[3]["usage"] = json!({
        "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
    });
    let got = events(server.chat(options).await).await;
    assert_eq!(got[..4], wanted);
    assert_eq!(got[4..], ["[DONE]"]);
}

#[tokio::test]
async fn an_answer_without_text_still_has_a_role() {
    let server = Server::of(Fake::of(|_| Vec::new())).await;
    let wanted = [chunk(json!({}), Some("stop")), "[DONE]".into()];
    let got = events(server.chat(json!({"stream": true})).await).await;
    assert_eq!(got, [&[role()][..], &wanted].concat());
}

#[tokio::test]
async fn a_completion_with_log_probabilities() {
    let server = Server::of(Fake::of(|_| vec![scored("hé"), scored("!")])).await;
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
    let wanted =
        [chunk("hé", logprobs("hé", 0), None), chunk("!", logprobs("!", 2), None), last, "[DONE]".into()];
    assert_eq!(events(server.completion(json!({"stream": true, "logprobs": 2})).await).await, wanted);
}

#[tokio::test]
async fn log_probabilities_of_a_chat_come_with_their_text() {
    let server = Server::of(Fake::of(|_| vec![scored("a")])).await;
    let got = events(server.chat(json!({"stream": true, "logprobs": true})).await).await;
    assert_eq!(got[0]["choices"][0]["logprobs"], Value::Null, "the role has none");
    assert_eq!(got[1]["choices"][0]["delta"], json!({"content": "a"}));
    assert_eq!(got[1]["choices"][0]["logprobs"]["content"][0]["token"], "a");
}

#[tokio::test]
async fn a_tool_call_that_is_split_across_events_comes_whole() {
    let server = Server::of(Fake::of(|_| {
        ["Look: <tool", "_call>{\"name\": \"f\",", " \"arguments\": {\"x\": 1}}</tool_", "call>\n"]
            .map(text)
            .to_vec()
    }))
    .await;
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let call = json!({
        "id": "call_ID", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}, "index": 0,
    });
    let wanted = [
        role(),
        chunk(json!({"content": "Look: "}), None),
        chunk(json!({"tool_calls": [call]}), None),
        chunk(json!({}), Some("tool_calls")),
        "[DONE]".into(),
    ];
    assert_eq!(events(server.chat(json!({"stream": true, "tools": tools})).await).await, wanted);
}

#[tokio::test]
async fn each_choice_has_a_role_and_a_finish() {
    let server = Server::of(Fake::of(|_| vec![text("x")])).await;
    let got = events(server.chat(json!({"stream": true, "n": 2})).await).await;
    for index in 0..2 {
        let of_choice = |event: &&Value| event["choices"][0]["index"] == index;
        let own: Vec<&Value> = got.iter().filter(of_choice).map(|event| &event["choices"][0]).collect();
        assert_eq!(own.len(), 3, "{own:?}");
        assert_eq!(own[0]["delta"]["role"], "assistant");
        assert_eq!(own[1]["delta"], json!({"content": "x"}));
        assert_eq!(own[2]["finish_reason"], "stop");
    }
    assert_eq!(got.len(), 7);
    assert_eq!(got[6], "[DONE]");
}

#[tokio::test]
async fn an_error_in_the_middle_is_the_last_event() {
    let end = Err(BackendError::failed("fake", "out of luck"));
    let server = Server::of(Fake { events: |_| vec![text("Hi")], end }).await;
    let error = json!({"error": {
        "message": "fake failed: out of luck", "type": "server_error", "param": null, "code": null,
    }});
    let wanted = [role(), chunk(json!({"content": "Hi"}), None), error];
    assert_eq!(events(server.chat(json!({"stream": true})).await).await, wanted);
}

#[tokio::test]
async fn an_error_before_the_first_event_has_its_status() {
    let server = Server::of(Fake::failing(BackendError::failed("fake", "out of luck"))).await;
    let response = server.chat(json!({"stream": true})).await;
    assert_eq!(response.status(), 503);
}

/// A backend that sends one event, and reports when it began and when the sink closed.
struct Endless(mpsc::UnboundedSender<&'static str>);

impl Backend for Endless {
    fn name(&self) -> &str {
        "endless"
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }
}

#[async_trait]
impl Generator for Endless {
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
async fn the_sink_closes_when_the_client_leaves_a_stream() {
    let (reports, mut reported) = mpsc::unbounded_channel();
    let server = Server::of(Endless(reports)).await;
    let mut response = server.chat(json!({"stream": true})).await;
    assert!(response.chunk().await.unwrap().is_some());
    assert_eq!(reported.recv().await, Some("began"));
    assert!(reported.try_recv().is_err(), "the sink is open while the client reads");
    drop(response);
    assert_eq!(reported.recv().await, Some("closed"));
}

#[tokio::test]
async fn the_sink_closes_when_the_client_leaves_without_an_answer() {
    let (reports, mut reported) = mpsc::unbounded_channel();
    let server = Server::of(Endless(reports)).await;
    let request = server.post("/v1/completions").json(&json!({"model": "m", "prompt": "hi"}));
    let asked = tokio::spawn(request.send());
    assert_eq!(reported.recv().await, Some("began"));
    asked.abort();
    assert_eq!(reported.recv().await, Some("closed"));
}
