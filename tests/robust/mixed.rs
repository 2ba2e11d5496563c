//! A mixed load for ten minutes: streams, frozen functions, hostile prompts, disconnecting clients and reloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tightwad_zoo::Kind;

use super::context::resident_bytes;
use crate::support::{PROMPTS, Server, all_cores, smollm2, zoo_model};

/// The duration of the load. `TIGHTWAD_MIXED_SECONDS` overrides it.
const DEFAULT_DURATION: Duration = Duration::from_secs(600);

fn script(version: u32) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "smollm2", context = "4k", slots = 6 }}
local fast = tw.speculation {{ target = target, drafters = tw.lookup {{}} }}
return tw.serve {{ models = {{
  plain = target,
  fast = fast,
  piped = function(req) return fast:generate(req) end,
  version = function(req) return "{version}" end,
  tekken = tw.model {{ path = "{}", slots = 2 }},
  recurrent = tw.model {{ path = "{}", slots = 2 }},
  freezes = function(req) return tostring(("a"):rep(40):find((".-"):rep(14) .. "b")) end,
  yields = function(req) while true do coroutine.yield() end end,
}} }}"#,
        smollm2().display(),
        zoo_model(Kind::PreTokenizer("tekken")).display(),
        zoo_model(Kind::Qwen35).display()
    )
}

/// The state that all clients share.
struct Run {
    url: String,
    client: reqwest::Client,
    stopped: AtomicBool,
    answers: AtomicU64,
}

impl Run {
    async fn post(&self, body: &Value) -> (u16, Value) {
        let response = self.client.post(&self.url).json(body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    fn is_running(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }
}

fn body(model: &str, prompt: &str) -> Value {
    json!({
        "model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 32, "temperature": 0.6, "seed": 5,
    })
}

/// Asks the same questions repeatedly and compares each answer with the expected one.
async fn ask_repeatedly(run: Arc<Run>, model: &'static str, expected: Vec<String>) {
    for index in (0..expected.len()).cycle() {
        if !run.is_running() {
            return;
        }
        let (status, answer) = run.post(&body(model, PROMPTS[index])).await;
        assert_eq!(status, 200, "{model}: {answer}");
        assert_eq!(answer["choices"][0]["message"]["content"], expected[index].as_str(), "{model}");
        run.answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls pipeline functions that do not end.
async fn call_endless_functions(run: Arc<Run>) {
    for model in ["freezes", "yields"].into_iter().cycle() {
        if !run.is_running() {
            return;
        }
        let (status, answer) = run.post(&body(model, "Hi")).await;
        assert_eq!(status, 503, "{model}: {answer}");
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

/// Sends prompts that are hostile to tokenizers, and closes streams early.
async fn send_hostile_requests(run: Arc<Run>) {
    for round in 0.. {
        if !run.is_running() {
            return;
        }
        let text = ["a", " ", "ก"][round % 3].repeat([20_000, 3_000_000][round % 2]);
        let (status, answer) = run.post(&body("tekken", &text)).await;
        // The host refuses or answers the prompt. It never fails.
        assert!(status == 200 || (400..500).contains(&status), "{status} {answer}");
        let mut stream = body("plain", "Tell me a long story.");
        (stream["stream"], stream["max_tokens"]) = (json!(true), json!(500));
        let mut response = run.client.post(&run.url).json(&stream).send().await.unwrap();
        let _ = response.chunk().await;
        drop(response);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes"]
async fn mixed_load_keeps_answers_exact_and_memory_flat() {
    let _permit = all_cores();
    let duration = std::env::var("TIGHTWAD_MIXED_SECONDS").ok().and_then(|text| text.parse().ok());
    let duration = duration.map_or(DEFAULT_DURATION, Duration::from_secs);
    let server = Server::start(&script(0));
    let client = tightwad_net::machine_client().build().unwrap();
    let url = server.url("/v1/chat/completions");
    let run = Arc::new(Run { url, client, stopped: AtomicBool::new(false), answers: AtomicU64::new(0) });
    let mut expected: Vec<(&str, Vec<String>)> = Vec::new();
    for model in ["plain", "fast", "piped", "recurrent"] {
        let mut answers = Vec::new();
        for prompt in PROMPTS {
            let (status, answer) = run.post(&body(model, prompt)).await;
            assert_eq!(status, 200, "{answer}");
            answers.push(answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned());
        }
        expected.push((model, answers));
    }
    assert_eq!(expected[0].1, expected[1].1);
    let ask = |(model, answers)| tokio::spawn(ask_repeatedly(run.clone(), model, answers));
    let mut clients: Vec<_> = expected.into_iter().map(ask).collect();
    clients.push(tokio::spawn(call_endless_functions(run.clone())));
    clients.push(tokio::spawn(send_hostile_requests(run.clone())));
    let (start, mut version, mut memory) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < duration {
        tokio::time::sleep(Duration::from_secs(5)).await;
        version += 1;
        server.script.write(&script(version));
        assert_eq!(server.get("/health").await.0, 200);
        memory.push(resident_bytes(server.process.id()) >> 20);
        assert!(clients.iter().all(|client| !client.is_finished()), "a client failed: {}", server.log_text());
    }
    run.stopped.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let answer = run.post(&body("version", "?")).await.1;
    assert_eq!(answer["choices"][0]["message"]["content"], version.to_string().as_str(), "{answer}");
    println!("{} answers, {version} reloads, memory in MiB: {memory:?}", run.answers.load(Ordering::Relaxed));
    let half = memory.len() / 2;
    let maximum = |part: &[u64]| part.iter().copied().max().unwrap_or_default();
    assert!(maximum(&memory[half..]) < maximum(&memory[..half]) * 11 / 10 + 50, "memory grows: {memory:?}");
}
