use serde_json::{Value, json};
use tightwad_core::FinishReason;

use crate::tests::fake::{FakeBackend, Server, json_body, outcome, report, scored_event, text};

fn usage(completion: u32) -> Value {
    json!({
        "prompt_tokens": 5, "completion_tokens": completion, "total_tokens": 5 + completion,
        "prompt_tokens_details": {"cached_tokens": 1},
    })
}

fn chat(choices: Value, completion_tokens: u32) -> Value {
    json!({
        "id": "chatcmpl-ID", "object": "chat.completion", "created": "NOW", "model": "m",
        "system_fingerprint": "VERSION", "choices": choices, "usage": usage(completion_tokens),
        "tightwad": report(),
    })
}

fn completion(choices: Value, completion_tokens: u32) -> Value {
    json!({
        "id": "cmpl-ID", "object": "text_completion", "created": "NOW", "model": "m",
        "system_fingerprint": "VERSION", "choices": choices, "usage": usage(completion_tokens),
        "tightwad": report(),
    })
}

#[tokio::test]
async fn chat_response_has_the_whole_message() {
    let server = Server::with_backend(FakeBackend::sending(|_| vec![text("Hel"), text("lo")])).await;
    let choice = json!({
        "index": 0, "message": {"role": "assistant", "content": "Hello", "refusal": null},
        "logprobs": null, "finish_reason": "stop",
    });
    assert_eq!(json_body(server.chat(json!({})).await).await, chat(json!([choice]), 2));
}

#[tokio::test]
async fn completion_at_max_tokens_has_finish_reason_length() {
    let end = Ok(outcome(FinishReason::Length));
    let server = Server::with_backend(FakeBackend { events: |_| vec![text("Hel"), text("lo")], end }).await;
    let choice = json!({"index": 0, "text": "Hello", "logprobs": null, "finish_reason": "length"});
    assert_eq!(json_body(server.completion(json!({})).await).await, completion(json!([choice]), 2));
}

#[tokio::test]
async fn choices_have_indices_and_summed_usage() {
    // The id of a request ends with the index of its choice.
    let server = Server::with_backend(FakeBackend::sending(|request| {
        vec![text(request.id.rsplit('-').next().unwrap())]
    }))
    .await;
    let choice = |index: u32| json!({"index": index, "text": index.to_string(), "logprobs": null, "finish_reason": "stop"});
    let response = server.completion(json!({"n": 3})).await;
    assert_eq!(json_body(response).await, completion(json!([choice(0), choice(1), choice(2)]), 6));
    let response = server.completion(json!({"prompt": ["a", "b"], "n": 2})).await;
    let mut expected = completion(json!([choice(0), choice(1), choice(2), choice(3)]), 8);
    // Each of the two prompts counts once.
    expected["usage"] = json!({
        "prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 2},
    });
    assert_eq!(json_body(response).await, expected);
}

#[tokio::test]
async fn tool_call_becomes_a_message_field() {
    let server = Server::with_backend(FakeBackend::sending(|_| {
        vec![
            text("<tool_call>{\"name\": \"weather\", "),
            text("\"arguments\": {\"city\": \"Rome\"}}</tool_call>"),
        ]
    }))
    .await;
    let tools = json!([{"type": "function", "function": {"name": "weather"}}]);
    let call = json!({
        "id": "call_ID", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"},
    });
    let message = json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [call]});
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "tool_calls"});
    assert_eq!(json_body(server.chat(json!({"tools": tools})).await).await, chat(json!([choice]), 2));
}

#[tokio::test]
async fn tool_call_without_tools_stays_text() {
    let server = Server::with_backend(FakeBackend::sending(|_| {
        vec![text("<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>")]
    }));
    let answer = json_body(server.await.chat(json!({})).await).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn chat_response_has_log_probabilities() {
    let server = Server::with_backend(FakeBackend::sending(|_| vec![scored_event("hé")])).await;
    let answer = json_body(server.chat(json!({"logprobs": true, "top_logprobs": 2})).await).await;
    let chosen = json!({"token": "hé", "logprob": -0.5, "bytes": [104, 195, 169]});
    let alternative = json!({"token": "no", "logprob": -1.5, "bytes": [110, 111]});
    let mut entry = chosen.clone();
    entry["top_logprobs"] = json!([chosen, alternative]);
    assert_eq!(answer["choices"][0]["logprobs"], json!({"content": [entry], "refusal": null}));
}

#[tokio::test]
async fn completion_response_has_log_probabilities() {
    let server =
        Server::with_backend(FakeBackend::sending(|_| vec![scored_event("hé"), scored_event("!")])).await;
    let answer = json_body(server.completion(json!({"logprobs": 2})).await).await;
    let expected = json!({
        "tokens": ["hé", "!"], "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"hé": -0.5, "no": -1.5}, {"!": -0.5, "no": -1.5}], "text_offset": [0, 2],
    });
    assert_eq!(answer["choices"][0]["logprobs"], expected);
}
