//! Pools over several machines: their tokens equal those of one machine, even when machines fail.
//! Each worker runs in a network namespace, behind a link with faults.
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tightwad_netlab::Proxy;
use tokio::time::sleep;

use crate::support::{
    PROMPTS, Server, Worker, all_cores, downloaded_model, lua_workers, one_core, small_drafter, small_model,
    smollm2, start_workers,
};

/// The memory per worker with which the small model (context 512, two sequences) needs two workers.
const MEMORY_FOR_TWO_WORKERS: &str = "12M";
/// The memory per worker with which the small model needs three workers.
const MEMORY_FOR_THREE_WORKERS: &str = "11000K";
/// The memory with which one worker is enough.
const MEMORY_FOR_ONE_WORKER: &str = "400M";

/// A script with the small model on the host and over `workers`. `fields` are further fields of `tw.pooling`.
fn script(workers: &[(Worker, Proxy)], fields: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{0}", name = "here", context = 512, threads = 1 }}
local q2 = tw.model {{ path = "{1}", name = "q2", context = 512, threads = 1 }}
local pool = tw.pooling {{ model = "{0}", name = "pool", include_host = false, context = 512, slots = 4, workers = {{ {2} }}{fields} }}
return tw.serve {{ models = {{
  here = here,
  pool = pool,
  combined = tw.speculation {{ target = pool, drafters = tw.lookup {{}} }},
  drafted = tw.speculation {{ target = pool, drafters = q2, settings = {{ fixed_draft = 4 }} }},
}} }}"#,
        small_model().display(),
        small_drafter().display(),
        lua_workers(workers)
    )
}

/// The status of the pool.
async fn status(server: &Server) -> Value {
    let (_, text) = server.get("/v1/tightwad/status").await;
    let status: Value = serde_json::from_str(&text).unwrap();
    status["models"][0].clone()
}

/// Waits until the pool is in `state`. Returns its status.
async fn wait_for_state(server: &Server, state: &str) -> Value {
    let start = Instant::now();
    loop {
        let now = status(server).await;
        if now["state"] == state {
            return now;
        }
        assert!(start.elapsed() < Duration::from_secs(90), "never {state}: {now}\n{}", server.log_text());
        sleep(Duration::from_millis(20)).await;
    }
}

/// The names of the workers that hold layers.
fn layer_holders(status: &Value) -> Vec<String> {
    let assignments = status["assignments"].as_array().unwrap().iter();
    let assignments = assignments.filter(|assignment| assignment["layers"].as_u64().unwrap() > 0);
    assignments.map(|assignment| assignment["machine"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and iproute2"]
async fn pool_generates_the_same_tokens_as_one_machine() {
    let _permit = one_core();
    for (count, memory) in [(2, MEMORY_FOR_TWO_WORKERS), (3, MEMORY_FOR_THREE_WORKERS)] {
        let workers = start_workers(count, &["--max-memory", memory]).await;
        let server = Server::start(&script(&workers, ", slots = 2").replace("slots = 4, ", ""));
        let now = status(&server).await;
        assert_eq!(layer_holders(&now).len(), usize::from(count), "{now}");
        let mut accepted = 0;
        for settings in [json!({"temperature": 0}), json!({"temperature": 0.8, "top_p": 0.95, "seed": 77})] {
            for prompt in &PROMPTS[..2] {
                let (expected, _) = server.ask("here", prompt, settings.clone()).await;
                for model in ["pool", "combined", "drafted"] {
                    let (text, report) = server.ask(model, prompt, settings.clone()).await;
                    assert_eq!(text, expected, "{model}, {count} workers, {settings}: {report}");
                    assert_eq!((&report["exact"], &report["ties"]), (&json!(true), &json!(0)), "{report}");
                    accepted += report["accepted"].as_u64().unwrap();
                }
            }
        }
        assert!(accepted > 0, "no proposal was accepted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes; needs the large models; needs root and iproute2"]
async fn speculation_over_a_pool_of_a_larger_model_is_exact() {
    let _permit = all_cores();
    for (count, memory) in [(2, "760M"), (3, "440M")] {
        check_qwen_over(&start_workers(count, &["--max-memory", memory]).await).await;
    }
}

/// Checks the tokens of Qwen 1.5b over `workers`, alone and with Qwen 0.5b as drafter.
async fn check_qwen_over(workers: &[(Worker, Proxy)]) {
    let (large, small) = (
        downloaded_model("qwen2.5-coder-1.5b-instruct.gguf"),
        downloaded_model("qwen2.5-coder-0.5b-instruct.gguf"),
    );
    let script = format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{0}", name = "here", context = 512, slots = 2, threads = 1 }}
local pool = tw.pooling {{ model = "{0}", name = "pool", include_host = false, context = 512, slots = 2, workers = {{ {2} }} }}
local small = tw.model {{ path = "{1}", name = "small", context = 512, slots = 2, threads = 1 }}
return tw.serve {{ models = {{
  here = here, pool = pool,
  combined = tw.speculation {{ target = pool, drafters = small, settings = {{ fixed_draft = 4 }} }},
}} }}"#,
        large.display(),
        small.display(),
        lua_workers(workers)
    );
    let server = Server::start(&script);
    let now = status(&server).await;
    assert_eq!(layer_holders(&now).len(), workers.len(), "{now}");
    for temperature in [0.0, 0.8] {
        let settings = json!({"temperature": temperature, "max_tokens": 24});
        let (expected, _) = server.ask("here", PROMPTS[0], settings.clone()).await;
        for model in ["pool", "combined"] {
            let (text, report) = server.ask(model, PROMPTS[0], settings.clone()).await;
            assert_eq!(text, expected, "{model}, {temperature}: {report}");
        }
    }
}

/// Answers one of four requests with 240 tokens: a logit bias forbids both end tokens.
async fn long_answer(server: &Server, model: &str, index: usize) -> String {
    let temperature = [0.0, 0.8][index % 2];
    let settings = json!({"max_tokens": 240, "temperature": temperature,
                          "logit_bias": {"0": -100, "2": -100}});
    server.ask(model, PROMPTS[index], settings).await.0
}

/// The texts of four concurrent streams over the pool.
async fn pool_answers(server: &Server) -> Vec<String> {
    join_all((0..4).map(|index| long_answer(server, ["pool", "combined"][index / 2], index))).await
}

/// Waits until streams have sent data to the `workers`.
async fn wait_for_traffic(workers: &[(Worker, Proxy)]) {
    let sent = || workers.iter().map(|(_, link)| link.faults().bytes().0).sum::<u64>();
    let (before, start) = (sent(), Instant::now());
    while sent() < before + 100_000 {
        assert!(start.elapsed() < Duration::from_secs(30), "no stream runs");
        sleep(Duration::from_millis(1)).await;
    }
}

/// The texts of the four requests on the host, one after the other.
async fn expected_answers(server: &Server) -> Vec<String> {
    let mut answers = Vec::new();
    for index in 0..4 {
        answers.push(long_answer(server, "here", index).await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and iproute2"]
async fn streams_survive_the_loss_of_workers_process_and_network() {
    let _permit = one_core();
    let mut workers = start_workers(2, &["--max-memory", MEMORY_FOR_ONE_WORKER]).await;
    let server = Server::start(&script(&workers, ""));
    let expected = expected_answers(&server).await;
    assert_eq!(pool_answers(&server).await, expected);

    // A worker with layers is lost.
    let holders = layer_holders(&status(&server).await);
    let first = usize::from(holders[0] == "w2");
    let start = Instant::now();
    let kill = async {
        wait_for_traffic(&workers).await;
        workers[first].0.kill();
        let lost = Instant::now();
        let now = wait_for_state(&server, "degraded").await;
        assert_eq!(now["unreachable"], json!([holders[0]]), "{now}");
        println!("a worker was killed: {:?} until the pool answered without it", lost.elapsed());
    };
    let (texts, ()) = tokio::join!(pool_answers(&server), kill);
    assert_eq!(texts, expected, "a worker was killed: {}", server.log_text());
    println!("four streams with a lost worker: {:?}", start.elapsed());

    // The worker returns.
    workers[first].0.restart();
    let restarted = Instant::now();
    wait_for_state(&server, "ready").await;
    println!("a worker returned: {:?} until the pool used it", restarted.elapsed());
    assert_eq!(pool_answers(&server).await, expected);

    // The child process is lost.
    let kill = async {
        wait_for_traffic(&workers).await;
        let process = status(&server).await["process"].to_string();
        let generation = status(&server).await["generation"].as_u64().unwrap();
        assert!(Command::new("kill").args(["-9", &process]).status().unwrap().success());
        let lost = Instant::now();
        while wait_for_state(&server, "ready").await["generation"].as_u64().unwrap() == generation {
            sleep(Duration::from_millis(20)).await;
        }
        println!("the process was killed: {:?} until the pool answered again", lost.elapsed());
    };
    let (texts, ()) = tokio::join!(pool_answers(&server), kill);
    assert_eq!(texts, expected, "the process was killed: {}", server.log_text());

    // The network stalls for five seconds, which is shorter than the heartbeat timeout.
    let stall = async {
        wait_for_traffic(&workers).await;
        workers.iter().for_each(|(_, link)| link.faults().stall(true));
        sleep(Duration::from_secs(5)).await;
        workers.iter().for_each(|(_, link)| link.faults().stall(false));
    };
    let (texts, ()) = tokio::join!(pool_answers(&server), stall);
    assert_eq!(texts, expected, "the network was stalled: {}", server.log_text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and iproute2"]
async fn second_load_sends_less_than_a_fiftieth_of_the_weights() {
    let _permit = one_core();
    // The weights of this model are much larger than the commands of a load.
    let workers = start_workers(2, &["--max-memory", "76M"]).await;
    let text = script(&workers, ", slots = 2").replace("slots = 4, ", "");
    let text = text.replace(&small_model().display().to_string(), &smollm2().display().to_string());
    let load = async || {
        let before: Vec<u64> = workers.iter().map(|(_, link)| link.faults().bytes().0).collect();
        let server = Server::start(&text);
        let now = status(&server).await;
        let sent: u64 =
            now["links"].as_array().unwrap().iter().map(|link| link["sent_bytes"].as_u64().unwrap()).sum();
        let cached: u64 =
            now["links"].as_array().unwrap().iter().map(|link| link["cached_bytes"].as_u64().unwrap()).sum();
        let weights: u64 = now["assignments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|assignment| assignment["weights"].as_u64().unwrap())
            .sum();
        let wire: u64 =
            workers.iter().zip(before).map(|((_, link), before)| link.faults().bytes().0 - before).sum();
        let (answer, _) = server.ask("pool", PROMPTS[0], json!({})).await;
        let (expected, _) = server.ask("here", PROMPTS[0], json!({})).await;
        assert_eq!(answer, expected);
        (sent, cached, weights, wire, now["loading_seconds"].as_f64().unwrap())
    };
    let (cold, cached, weights, _, cold_seconds) = load().await;
    assert!(cold > weights / 2 && cached == 0, "{cold} of {weights}");
    let (warm, cached, _, wire, warm_seconds) = load().await;
    println!(
        "cold {cold} bytes in {cold_seconds:.1} s; warm {warm} bytes in {warm_seconds:.1} s, {cached} cached; {wire} including the measurement of the link"
    );
    assert!(warm * 50 < weights, "a warm load sent {warm} of {weights} bytes");
}
