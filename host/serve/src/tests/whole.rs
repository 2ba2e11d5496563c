use serde_json::{Value, json};
use tightwad_core::Finish;

use crate::tests::fake::{Fake, Server, outcome, report, scored, text, whole};

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
async fn a_chat_completion() {
    let server = Server::of(Fake::of(|_| vec![text("Hel"), text("lo")])).await;
    let choice = json!({
        "index": 0, "message": {"role": "assistant", "content": "Hello", "refusal": null},
        "logprobs": null, "finish_reason": "stop",
    });
    assert_eq!(whole(server.chat(json!({})).await).await, chat(json!([choice]), 2));
}

#[tokio::test]
async fn a_completion_that_ends_at_its_length() {
    let end = Ok(outcome(Finish::Length));
    let server = Server::of(Fake { events: |_| vec![text("Hel"), text("lo")], end }).await;
    let choice = json!({"index": 0, "text": "Hello", "logprobs": null, "finish_reason": "length"});
    assert_eq!(whole(server.completion(json!({})).await).await, completion(json!([choice]), 2));
}

#[tokio::test]
async fn each_choice_has_its_index_and_usage_is_the_sum() {
    // Identifiers of requests end with the number of the choice.
    let server = Server::of(Fake::of(|request| vec![text(request.id.rsplit('-').next().unwrap())])).await;
    let choice = |index: u32| json!({"index": index, "text": index.to_string(), "logprobs": null, "finish_reason": "stop"});
    let response = server.completion(json!({"n": 3})).await;
    assert_eq!(whole(response).await, completion(json!([choice(0), choice(1), choice(2)]), 6));
    let response = server.completion(json!({"prompt": ["a", "b"]})).await;
    assert_eq!(whole(response).await, completion(json!([choice(0), choice(1)]), 4));
}

#[tokio::test]
async fn a_tool_call() {
    let server = Server::of(Fake::of(|_| {
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
    assert_eq!(whole(server.chat(json!({"tools": tools})).await).await, chat(json!([choice]), 2));
}

#[tokio::test]
async fn without_tools_a_call_is_text() {
    let server =
        Server::of(Fake::of(|_| vec![text("<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>")]));
    let answer = whole(server.await.chat(json!({})).await).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn log_probabilities_of_a_chat() {
    let server = Server::of(Fake::of(|_| vec![scored("hé")])).await;
    let answer = whole(server.chat(json!({"logprobs": true, "top_logprobs": 2})).await).await;
    let own = json!({"token": "hé", "logprob": -0.5, "bytes": [104, 195, 169]});
    let other = json!({"token": "no", "logprob": -1.5, "bytes": [110, 111]});
    let mut entry = own.clone();
    entry["top_logprobs"] = json!([own, other]);
    assert_eq!(answer["choices"][0]["logprobs"], json!({"content": [entry], "refusal": null}));
}

#[tokio::test]
async fn log_probabilities_of_a_completion() {
    let server = Server::of(Fake::of(|_| vec![scored("hé"), scored("!")])).await;
    let answer = whole(server.completion(json!({"logprobs": 2})).await).await;
    let wanted = json!({
        "tokens": ["hé", "!"], "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"hé": -0.5, "no": -1.5}, {"!": -0.5, "no": -1.5}], "text_offset": [0, 2],
    });
    assert_eq!(answer["choices"][0]["logprobs"], wanted);
}
