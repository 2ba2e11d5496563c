//! Everything at once, for ten minutes: streams, frozen functions, hostile prompts, clients that leave, reloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tightwad_zoo::Kind;

use super::context::resident;
use crate::support::{PROMPTS, Server, alone, smollm2, zoo};

/// How long it runs; `TIGHTWAD_MIXED_SECONDS` says otherwise.
const DURATION: Duration = Duration::from_secs(600);

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
        zoo(Kind::PreTokenizer("tekken")).display(),
        zoo(Kind::Qwen35).display()
    )
}

/// What the workers share.
struct Run {
    url: String,
    client: reqwest::Client,
    over: AtomicBool,
    answers: AtomicU64,
}

impl Run {
    async fn post(&self, body: &Value) -> (u16, Value) {
        let response = self.client.post(&self.url).json(body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }
}

fn body(model: &str, prompt: &str) -> Value {
    json!({
        "model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 32, "temperature": 0.6, "seed": 5,
    })
}

/// Asks the same questions again and again; every answer is the first one.
async fn asks(run: Arc<Run>, model: &'static str, truths: Vec<String>) {
    for index in (0..truths.len()).cycle() {
        if !run.goes_on() {
            return;
        }
        let (status, answer) = run.post(&body(model, PROMPTS[index])).await;
        assert_eq!(status, 200, "{model}: {answer}");
        assert_eq!(answer["choices"][0]["message"]["content"], truths[index].as_str(), "{model}");
        run.answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls functions that do not end.
async fn freezes(run: Arc<Run>) {
    for model in ["freezes", "yields"].into_iter().cycle() {
        if !run.goes_on() {
            return;
        }
        let (status, answer) = run.post(&body(model, "Hi")).await;
        assert_eq!(status, 503, "{model}: {answer}");
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

/// Sends prompts that no tokenizer likes, and leaves in the middle of streams.
async fn annoys(run: Arc<Run>) {
    for round in 0.. {
        if !run.goes_on() {
            return;
        }
        let text = ["a", " ", "ก"][round % 3].repeat([20_000, 3_000_000][round % 2]);
        let (status, answer) = run.post(&body("tekken", &text)).await;
        // Too long, or read and answered: never a fault of the host.
        assert!(status == 200 || (400..500).contains(&status), "{status} {answer}");
        let mut stream = body("plain", "Tell me a long story.");
        (stream["stream"], stream["max_tokens"]) = (json!(true), json!(500));
        let mut left = run.client.post(&run.url).json(&stream).send().await.unwrap();
        let _ = left.chunk().await;
        drop(left);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes"]
async fn nothing_is_lost_or_wrong_and_memory_stays_flat() {
    let _turn = alone();
    let duration = std::env::var("TIGHTWAD_MIXED_SECONDS").ok().and_then(|text| text.parse().ok());
    let duration = duration.map_or(DURATION, Duration::from_secs);
    let server = Server::start(&script(0));
    let client = tightwad_net::machine_client().build().unwrap();
    let url = server.url("/v1/chat/completions");
    let run = Arc::new(Run { url, client, over: AtomicBool::new(false), answers: AtomicU64::new(0) });
    let mut truths: Vec<(&str, Vec<String>)> = Vec::new();
    for model in ["plain", "fast", "piped", "recurrent"] {
        let mut own = Vec::new();
        for prompt in PROMPTS {
            let (status, answer) = run.post(&body(model, prompt)).await;
            assert_eq!(status, 200, "{answer}");
            own.push(answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned());
        }
        truths.push((model, own));
    }
    assert_eq!(truths[0].1, truths[1].1);
    let mut workers: Vec<_> =
        truths.into_iter().map(|(model, own)| tokio::spawn(asks(run.clone(), model, own))).collect();
    workers.extend([tokio::spawn(freezes(run.clone())), tokio::spawn(annoys(run.clone()))]);
    let (start, mut version, mut memory) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < duration {
        tokio::time::sleep(Duration::from_secs(5)).await;
        version += 1;
        server.script.write(&script(version));
        assert_eq!(server.get("/health").await.0, 200);
        memory.push(resident(server.process.id()) >> 20);
        assert!(workers.iter().all(|worker| !worker.is_finished()), "a worker failed: {}", server.logged());
    }
    run.over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    let answered = run.post(&body("version", "?")).await.1;
    assert_eq!(answered["choices"][0]["message"]["content"], version.to_string().as_str(), "{answered}");
    println!("{} answers, {version} reloads, memory in MiB: {memory:?}", run.answers.load(Ordering::Relaxed));
    let half = memory.len() / 2;
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or_default();
    assert!(most(&memory[half..]) < most(&memory[..half]) * 11 / 10 + 50, "memory grows: {memory:?}");
}
