//! One model over many machines: the tokens are those of one machine, whatever happens to the others.
//! Workers are processes on machines of their own (network namespaces), behind links that can be cut.
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tightwad_netlab::Proxy;
use tokio::time::sleep;

use crate::support::{
    PROMPTS, Server, Worker, alone, listed, model, share, small, small_drafter, smollm2, workers,
};

/// Memory with which the small model (context 512, two sequences) needs two workers, and three.
const TWO: &str = "12M";
const THREE: &str = "11000K";
/// Memory with which one worker is enough.
const ENOUGH: &str = "400M";

/// The small model here and over `workers`; `more` are fields of `tw.pooling`.
fn script(workers: &[(Worker, Proxy)], more: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{0}", name = "here", context = 512, threads = 1 }}
local q2 = tw.model {{ path = "{1}", name = "q2", context = 512, threads = 1 }}
local pool = tw.pooling {{ model = "{0}", name = "pool", here = false, context = 512, slots = 4, workers = {{ {2} }}{more} }}
return tw.serve {{ models = {{
  here = here,
  pool = pool,
  combined = tw.speculation {{ target = pool, draft = tw.lookup {{}} }},
  drafted = tw.speculation {{ target = pool, draft = q2, settings = {{ fixed_draft = 4 }} }},
}} }}"#,
        small().display(),
        small_drafter().display(),
        listed(workers)
    )
}

async fn status(server: &Server) -> Value {
    let (_, text) = server.get("/v1/tightwad/status").await;
    let status: Value = serde_json::from_str(&text).unwrap();
    status["models"][0].clone()
}

/// Waits until the pool is in `state`; what it then is.
async fn until(server: &Server, state: &str) -> Value {
    let start = Instant::now();
    loop {
        let now = status(server).await;
        if now["state"] == state {
            return now;
        }
        assert!(start.elapsed() < Duration::from_secs(90), "never {state}: {now}\n{}", server.logged());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Workers that hold layers.
fn holders(status: &Value) -> Vec<String> {
    let parts = status["parts"].as_array().unwrap().iter();
    let parts = parts.filter(|part| part["layers"].as_u64().unwrap() > 0);
    parts.map(|part| part["machine"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and iproute2"]
async fn a_pool_gives_the_same_tokens_as_one_machine() {
    let _turn = share();
    for (count, memory) in [(2, TWO), (3, THREE)] {
        let workers = workers(count, &["--memory", memory]).await;
        let server = Server::start(&script(&workers, ", slots = 2").replace("slots = 4, ", ""));
        let now = status(&server).await;
        assert_eq!(holders(&now).len(), usize::from(count), "{now}");
        let mut accepted = 0;
        for settings in [json!({"temperature": 0}), json!({"temperature": 0.8, "top_p": 0.95, "seed": 77})] {
            for prompt in &PROMPTS[..2] {
                let (here, _) = server.ask("here", prompt, settings.clone()).await;
                for model in ["pool", "combined", "drafted"] {
                    let (text, report) = server.ask(model, prompt, settings.clone()).await;
                    assert_eq!(text, here, "{model}, {count} workers, {settings}: {report}");
                    assert_eq!((&report["exact"], &report["ties"]), (&json!(true), &json!(0)), "{report}");
                    accepted += report["accepted"].as_u64().unwrap();
                }
            }
        }
        assert!(accepted > 0, "no draft was ever accepted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes; needs the large models; needs root and iproute2"]
async fn a_larger_model_over_workers_with_a_smaller_one_that_drafts() {
    let _turn = alone();
    for (count, memory) in [(2, "760M"), (3, "440M")] {
        qwen_over(&workers(count, &["--memory", memory]).await).await;
    }
}

async fn qwen_over(workers: &[(Worker, Proxy)]) {
    let (large, small) =
        (model("qwen2.5-coder-1.5b-instruct.gguf"), model("qwen2.5-coder-0.5b-instruct.gguf"));
    let script = format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{0}", name = "here", context = 512, slots = 2, threads = 1 }}
local pool = tw.pooling {{ model = "{0}", name = "pool", here = false, context = 512, slots = 2, workers = {{ {2} }} }}
local small = tw.model {{ path = "{1}", name = "small", context = 512, slots = 2, threads = 1 }}
return tw.serve {{ models = {{
  here = here, pool = pool,
  combined = tw.speculation {{ target = pool, draft = small, settings = {{ fixed_draft = 4 }} }},
}} }}"#,
        large.display(),
        small.display(),
        listed(workers)
    );
    let server = Server::start(&script);
    let now = status(&server).await;
    assert_eq!(holders(&now).len(), workers.len(), "{now}");
    for temperature in [0.0, 0.8] {
        let settings = json!({"temperature": temperature, "max_tokens": 24});
        let (here, _) = server.ask("here", PROMPTS[0], settings.clone()).await;
        for model in ["pool", "combined"] {
            let (text, report) = server.ask(model, PROMPTS[0], settings.clone()).await;
            assert_eq!(text, here, "{model}, {temperature}: {report}");
        }
    }
}

/// One of four requests, that ends when it is told to.
async fn one(server: &Server, model: &str, index: usize) -> String {
    let temperature = [0.0, 0.8][index % 2];
    let settings = json!({"max_tokens": 240, "temperature": temperature,
                          "logit_bias": {"0": -100, "2": -100}});
    server.ask(model, PROMPTS[index], settings).await.0
}

/// Four streams over the pool; their texts.
async fn four(server: &Server) -> Vec<String> {
    join_all((0..4).map(|index| one(server, ["pool", "combined"][index / 2], index))).await
}

/// Waits until streams have sent some of their tokens to the `workers`.
async fn under_way(workers: &[(Worker, Proxy)]) {
    let sent = || workers.iter().map(|(_, link)| link.faults().bytes().0).sum::<u64>();
    let (before, start) = (sent(), Instant::now());
    while sent() < before + 100_000 {
        assert!(start.elapsed() < Duration::from_secs(30), "no stream runs");
        sleep(Duration::from_millis(1)).await;
    }
}

/// What they must be.
async fn truths(server: &Server) -> Vec<String> {
    let mut truths = Vec::new();
    for index in 0..4 {
        truths.push(one(server, "here", index).await);
    }
    truths
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and iproute2"]
async fn whatever_is_lost_every_stream_ends_as_it_would_have() {
    let _turn = share();
    let mut workers = workers(2, &["--memory", ENOUGH]).await;
    let server = Server::start(&script(&workers, ""));
    let truths = truths(&server).await;
    assert_eq!(four(&server).await, truths);

    // The worker that holds the layers.
    let held = holders(&status(&server).await);
    let first = usize::from(held[0] == "w2");
    let begun = Instant::now();
    let kill = async {
        under_way(&workers).await;
        workers[first].0.kill();
        let lost = Instant::now();
        let now = until(&server, "degraded").await;
        assert_eq!(now["absent"], json!([held[0]]), "{now}");
        println!("a worker was killed: {:?} until the pool answered without it", lost.elapsed());
    };
    let (texts, ()) = tokio::join!(four(&server), kill);
    assert_eq!(texts, truths, "a worker was killed: {}", server.logged());
    println!("four streams with a lost worker: {:?}", begun.elapsed());

    // It comes back.
    workers[first].0.again();
    let back = Instant::now();
    until(&server, "ready").await;
    println!("a worker came back: {:?} until the pool used it", back.elapsed());
    assert_eq!(four(&server).await, truths);

    // The process that holds the model.
    let kill = async {
        under_way(&workers).await;
        let process = status(&server).await["process"].to_string();
        let generation = status(&server).await["generation"].as_u64().unwrap();
        assert!(Command::new("kill").args(["-9", &process]).status().unwrap().success());
        let lost = Instant::now();
        while until(&server, "ready").await["generation"].as_u64().unwrap() == generation {
            sleep(Duration::from_millis(20)).await;
        }
        println!("the process was killed: {:?} until the pool answered again", lost.elapsed());
    };
    let (texts, ()) = tokio::join!(four(&server), kill);
    assert_eq!(texts, truths, "the process was killed: {}", server.logged());

    // The network, for five seconds: shorter than the silence after which a worker is given up.
    let cut = async {
        under_way(&workers).await;
        workers.iter().for_each(|(_, link)| link.faults().cut(true));
        sleep(Duration::from_secs(5)).await;
        workers.iter().for_each(|(_, link)| link.faults().cut(false));
    };
    let (texts, ()) = tokio::join!(four(&server), cut);
    assert_eq!(texts, truths, "the network was cut: {}", server.logged());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and iproute2"]
async fn a_second_load_sends_next_to_nothing() {
    let _turn = share();
    // A model whose weights are far more than what a load says of them.
    let workers = workers(2, &["--memory", "76M"]).await;
    let text = script(&workers, ", slots = 2").replace("slots = 4, ", "");
    let text = text.replace(&small().display().to_string(), &smollm2().display().to_string());
    let sent = async || {
        let before: Vec<u64> = workers.iter().map(|(_, link)| link.faults().bytes().0).collect();
        let server = Server::start(&text);
        let now = status(&server).await;
        let sent: u64 =
            now["links"].as_array().unwrap().iter().map(|link| link["sent"].as_u64().unwrap()).sum();
        let known: u64 =
            now["links"].as_array().unwrap().iter().map(|link| link["known"].as_u64().unwrap()).sum();
        let weights: u64 =
            now["parts"].as_array().unwrap().iter().map(|part| part["weights"].as_u64().unwrap()).sum();
        let wire: u64 =
            workers.iter().zip(before).map(|((_, link), before)| link.faults().bytes().0 - before).sum();
        let (answer, _) = server.ask("pool", PROMPTS[0], json!({})).await;
        let (here, _) = server.ask("here", PROMPTS[0], json!({})).await;
        assert_eq!(answer, here);
        (sent, known, weights, wire, now["loading_seconds"].as_f64().unwrap())
    };
    let (cold, known, weights, _, cold_seconds) = sent().await;
    assert!(cold > weights / 2 && known == 0, "{cold} of {weights}");
    let (warm, known, _, wire, warm_seconds) = sent().await;
    println!(
        "cold {cold} bytes in {cold_seconds:.1} s; warm {warm} bytes in {warm_seconds:.1} s, {known} known; with the measuring of the link {wire}"
    );
    assert!(warm * 50 < weights, "a warm load sent {warm} of {weights} bytes");
}
