//! The HTTP endpoint, from the view of its clients.
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{PROMPTS, Server, one_core, plain_and_fast_script, small_model, smollm2};

fn chat(question: &str) -> Value {
    json!({"model": "fast", "messages": [{"role": "user", "content": question}], "max_tokens": 40, "seed": 3})
}

/// A request for an answer of exactly `tokens` tokens. A logit bias forbids both end tokens.
fn long_chat(tokens: u32) -> Value {
    let mut body = chat("Tell a very long story.");
    body["max_tokens"] = json!(tokens);
    body["logit_bias"] = json!({"0": -100, "2": -100});
    body
}

#[tokio::test]
async fn streamed_answer_equals_the_complete_answer() {
    let _permit = one_core();
    let server = Server::start(&plain_and_fast_script(&small_model(), ""));
    let mut body = chat(PROMPTS[1]);
    body["temperature"] = json!(0.8);
    let (status, complete) = server.post("/v1/chat/completions", &body).await;
    assert_eq!(status, 200, "{complete}");
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let events = server.stream(&body).await;
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(complete["choices"][0]["message"]["content"], text.as_str());
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let finish = &events[events.len() - 2];
    assert!(["stop", "length"].contains(&finish["choices"][0]["finish_reason"].as_str().unwrap()));
    assert_eq!(finish["tightwad"]["exact"], true);
    assert_eq!(finish["tightwad"]["mode"], "speculation");
    assert_eq!(finish["tightwad"]["plugins"][0]["sha256"].as_str().unwrap().len(), 64);
    let usage = &events.last().unwrap()["usage"];
    assert_eq!(usage["completion_tokens"], complete["usage"]["completion_tokens"]);
    // The second request finds its prompt in the prefix cache.
    assert!(usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 10);
}

#[tokio::test]
async fn invalid_request_gets_one_clear_error() {
    let _permit = one_core();
    let server = Server::start(&plain_and_fast_script(&small_model(), ""));
    let message = json!([{"role": "user", "content": "hi"}]);
    let long_prompt = "word ".repeat(3000);
    for (body, status, message_part) in [
        (json!({"model": "fast", "messages": message, "max_tokens": -5}), 400, "max_tokens"),
        (json!({"model": "fast", "messages": message, "temperature": "hot"}), 400, "temperature"),
        (json!({"model": "fast", "messages": "hi"}), 400, "messages"),
        (json!({"model": "gpt-9", "messages": message}), 404, "fast, plain"),
        (
            json!({"model": "fast", "messages": [{"role": "user", "content": long_prompt}]}),
            400,
            "context is 1024 tokens",
        ),
        (json!({"model": "fast", "messages": message, "max_tokens": 5000}), 400, "5000"),
        (json!({"model": "fast", "messages": message, "stop": ""}), 400, "stop"),
        (
            json!({"model": "fast", "messages": message, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "robot"}}}}),
            400,
            "schema",
        ),
        (
            json!({"model": "fast", "messages": message, "chat_template_kwargs": {"messages": []}}),
            400,
            "cannot set 'messages'",
        ),
        (json!({"model": "fast", "messages": message, "continue_final_message": true}), 400, "last message"),
        (json!({"messages": message}), 400, "model"),
    ] {
        let (found_status, answer) = server.post("/v1/chat/completions", &body).await;
        let error = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(found_status, status, "{answer}");
        assert!(error.contains(message_part), "'{message_part}' is not in: {error}");
    }
    for (raw, status, message_part) in [
        (b"{\"model\": ".to_vec(), 400, "valid JSON"),
        (b"{\"model\": \"\xff\xfe\"}".to_vec(), 400, "valid JSON"),
        (vec![b' '; 11 << 20], 413, "10 MB"),
    ] {
        let response = server
            .client
            .post(server.url("/v1/chat/completions"))
            .header("content-type", "application/json")
            .body(raw)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), status);
        let text = response.text().await.unwrap();
        assert!(text.contains(message_part), "{text}");
    }
    assert_eq!(server.get("/v1/nothing").await.0, 404);
    assert_eq!(server.get("/v1/chat/completions").await.0, 405);
    assert_eq!(server.get("/health").await.0, 200);
    let (status, models) = server.get("/v1/models").await;
    assert!(status == 200 && models.contains("\"fast\"") && models.contains("\"plain\""));
}

#[tokio::test]
async fn endpoint_supports_stop_logprobs_choices_and_completions() {
    let _permit = one_core();
    let server = Server::start(&plain_and_fast_script(&smollm2(), ""));
    let mut body = chat("Count: one, two, three, four, five, six.");
    body["stop"] = json!([" three", "three"]);
    body["temperature"] = json!(0);
    let (_, answer) = server.post("/v1/chat/completions", &body).await;
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!text.contains("three"), "{text}");

    let mut body = chat(PROMPTS[0]);
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(3);
    body["n"] = json!(2);
    let (_, answer) = server.post("/v1/chat/completions", &body).await;
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 2);
    assert_ne!(choices[0]["message"]["content"], choices[1]["message"]["content"]);
    let content = choices[0]["logprobs"]["content"].as_array().unwrap();
    let joined: String = content.iter().map(|entry| entry["token"].as_str().unwrap()).collect();
    assert_eq!(joined, choices[0]["message"]["content"].as_str().unwrap());
    assert!(content.iter().all(|entry| entry["logprob"].as_f64().unwrap() <= 0.0));
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 3);

    let body = json!({"model": "plain", "prompt": ["The capital of France is", "2 + 2 ="], "max_tokens": 5, "temperature": 0, "logprobs": 1});
    let (status, answer) = server.post("/v1/completions", &body).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["choices"][0]["text"].as_str().unwrap().contains("Paris"), "{answer}");
    assert_eq!(answer["choices"][1]["index"], 1);
    assert_eq!(answer["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn client_disconnect_frees_its_sequence() {
    let _permit = one_core();
    let server = Server::start(&plain_and_fast_script(&smollm2(), ""));
    for model in ["plain", "fast"] {
        let mut body = long_chat(900);
        body["model"] = json!(model);
        body["stream"] = json!(true);
        let request = server.client.post(server.url("/v1/chat/completions")).json(&body);
        let mut stream = request.send().await.unwrap().bytes_stream();
        stream.next().await.unwrap().unwrap();
        assert_eq!(server.metric("tightwad_engine_active_sequences").await, 1.0);
        drop(stream);
        let time = server.wait_for_metric("tightwad_engine_active_sequences", 0.0).await;
        println!("{model}: freed after {} ms", time.as_millis());
        // A request without a stream, which the client abandons after a timeout.
        body["stream"] = json!(false);
        let request = server.client.post(server.url("/v1/chat/completions")).json(&body);
        assert!(request.timeout(Duration::from_millis(400)).send().await.unwrap_err().is_timeout());
        server.wait_for_metric("tightwad_engine_active_sequences", 0.0).await;
        server.wait_for_metric("tightwad_requests_in_flight", 0.0).await;
    }
}

#[tokio::test]
async fn full_queue_answers_429_and_recovers() {
    let _permit = one_core();
    let server = Server::start(&plain_and_fast_script(&smollm2(), ", slots = 1, max_queue = 1"));
    let body = long_chat(900);
    let send = || server.client.post(server.url("/v1/chat/completions")).json(&body).send();
    let mut requests: Vec<_> = (0..4).map(|_| tokio::spawn(send())).collect();
    let mut refused = 0;
    for request in &mut requests {
        // The host refuses a request at once. Running and queued requests take longer.
        if let Ok(response) = tokio::time::timeout(Duration::from_millis(1500), request).await {
            let response = response.unwrap().unwrap();
            if response.status() == 429 {
                assert_eq!(response.headers()["retry-after"], "1");
                refused += 1;
            }
        }
    }
    assert!(refused >= 1, "no request was refused");
    requests.iter().for_each(tokio::task::JoinHandle::abort);
    server.wait_for_metric("tightwad_engine_active_sequences", 0.0).await;
    server.ask("fast", "Say hi.", json!({})).await;
}

#[tokio::test]
async fn token_protects_every_path_except_health() {
    let _permit = one_core();
    let server = Server::start_with(&plain_and_fast_script(&small_model(), ""), &["--token", "secret"]);
    assert_eq!(server.get("/health").await.0, 200);
    for path in ["/v1/models", "/metrics"] {
        assert_eq!(server.get(path).await.0, 401);
    }
    let response = server.client.get(server.url("/v1/models")).bearer_auth("secret").send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn server_reloads_a_script_and_ignores_a_broken_one() {
    let _permit = one_core();
    let script = plain_and_fast_script(&small_model(), "");
    let server = Server::start(&script);
    let running =
        tokio::spawn(server.client.post(server.url("/v1/chat/completions")).json(&long_chat(300)).send());
    server.script.write(&script.replace("plain = target", "[\"renamed\"] = target"));
    let wait_for_reload = async {
        while !server.get("/v1/models").await.1.contains("renamed") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait_for_reload).await.unwrap();
    server.script.write("this is not Lua");
    server.process.wait_for_log("The host keeps the old one", 30).await;
    assert!(server.get("/v1/models").await.1.contains("renamed"));
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
}
