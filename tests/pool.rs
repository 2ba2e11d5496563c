//! One model over many machines: the tokens are those of one machine, whatever happens to the others.
//! Workers are processes on machines of their own (network namespaces), behind links that can be cut.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{
    PROMPTS, Script, Server, Worker, alone, listed, model, quick, smollm2, smollm2_q2, tightwad, workers,
};
use tightwad_netlab::Proxy;
use tokio::time::sleep;

/// Memory with which SmolLM2 (context 512, two sequences) needs two workers, and three.
const TWO: &str = "84M";
const THREE: &str = "66M";
/// Memory with which one worker is enough.
const ENOUGH: &str = "400M";

fn available() -> bool {
    let available = tightwad_netlab::available();
    if !available {
        eprintln!("skipped: network namespaces need root and iproute2");
    }
    available
}

/// SmolLM2 here and over `workers`; `more` are fields of `tw.pooling`.
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
        smollm2().display(),
        smollm2_q2().display(),
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
async fn a_pool_gives_the_same_tokens_as_one_machine() {
    let _alone = alone();
    if !available() {
        return;
    }
    for (count, memory) in [(2, TWO), (3, THREE)] {
        let workers = workers(count, &["--memory", memory]).await;
        let server = Server::start(&script(&workers, ", slots = 2").replace("slots = 4, ", ""));
        let now = status(&server).await;
        assert_eq!(holders(&now).len(), usize::from(count), "{now}");
        let mut accepted = 0;
        for settings in [json!({"temperature": 0}), json!({"temperature": 0.8, "top_p": 0.95, "seed": 77})] {
            for prompt in &PROMPTS[..3] {
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
async fn a_larger_model_over_two_workers_with_a_smaller_one_that_drafts() {
    let _alone = alone();
    if quick() || !available() {
        return;
    }
    let workers = workers(2, &["--memory", "760M"]).await;
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
        listed(&workers)
    );
    let server = Server::start(&script);
    let now = status(&server).await;
    assert_eq!(holders(&now).len(), 2, "{now}");
    let settings = json!({"temperature": 0, "max_tokens": 32});
    let (here, _) = server.ask("here", PROMPTS[0], settings.clone()).await;
    for model in ["pool", "combined"] {
        let (text, report) = server.ask(model, PROMPTS[0], settings.clone()).await;
        assert_eq!(text, here, "{model}: {report}");
    }
}

/// One of four requests, that ends when it is told to.
async fn one(server: &Server, model: &str, index: usize) -> String {
    let temperature = [0.0, 0.8][index % 2];
    let settings = json!({"max_tokens": 96, "temperature": temperature,
                          "logit_bias": {"0": -100, "2": -100}});
    server.ask(model, PROMPTS[index], settings).await.0
}

/// Four streams over the pool; their texts.
async fn four(server: &Server) -> Vec<String> {
    join_all((0..4).map(|index| one(server, ["pool", "combined"][index / 2], index))).await
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
async fn whatever_is_lost_every_stream_ends_as_it_would_have() {
    let _alone = alone();
    if !available() {
        return;
    }
    let mut workers = workers(2, &["--memory", ENOUGH]).await;
    let server = Server::start(&script(&workers, ""));
    let truths = truths(&server).await;
    assert_eq!(four(&server).await, truths);

    // The worker that holds the layers.
    let held = holders(&status(&server).await);
    let first = usize::from(held[0] == "w2");
    let begun = Instant::now();
    let kill = async {
        sleep(Duration::from_millis(400)).await;
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
        sleep(Duration::from_millis(400)).await;
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
        sleep(Duration::from_millis(400)).await;
        workers.iter().for_each(|(_, link)| link.faults().cut(true));
        sleep(Duration::from_secs(5)).await;
        workers.iter().for_each(|(_, link)| link.faults().cut(false));
    };
    let (texts, ()) = tokio::join!(four(&server), cut);
    assert_eq!(texts, truths, "the network was cut: {}", server.logged());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_load_sends_next_to_nothing() {
    let _alone = alone();
    if !available() {
        return;
    }
    let workers = workers(2, &["--memory", TWO]).await;
    let text = script(&workers, ", slots = 2").replace("slots = 4, ", "");
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

#[tokio::test]
async fn what_cannot_be_pooled_is_refused_with_the_way_out() {
    let _alone = alone();
    let worker = Worker::start(&["--memory", "40M", "--token", "secret"]);
    let check = |workers: &str, more: &str| {
        let script = Script::new(&format!(
            "local tw = require \"tightwad\"\nlocal p = tw.pooling {{ model = \"{}\", here = false, context = 512, slots = 2, workers = {{ {workers} }}{more} }}\nreturn tw.serve {{ models = {{ p = p }} }}",
            smollm2().display()
        ));
        let done = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{error}");
        assert!(error.contains("script.lua:2"), "{error}");
        error
    };
    let own = format!("{{ url = \"{}\", token = \"secret\" }}", worker.url());
    let error = check(&own, "");
    assert!(error.contains("are missing") && error.contains("of 30 layers would fit"), "{error}");
    let error = check(&format!("\"{}\"", worker.url()), "");
    assert!(error.contains("does not take this token"), "{error}");
    assert!(check("\"http://127.0.0.1:1\"", "").contains("is `tightwad worker` running there"));
    assert!(check("", "").contains("nowhere to compute"));
    assert!(check("\"nonsense\"", "").contains("no address of a worker"));
    assert!(check(&own, ", wokers = {}").contains("did you mean 'workers'"));
    let twice = check(&format!("{own}, {own}"), "");
    assert!(twice.contains("is given twice"), "{twice}");

    // Something that answers HTTP and is no worker; a worker of another version; something else.
    let not_found = serve("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    assert!(check(&format!("\"http://{not_found}\""), "").contains("is no worker (404"));
    let old = serve(concat!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
        r#"{"tightwad":"0.0.9","protocol":1,"rpc":[6,1],"device":"CPU","gpu":false,"threads":2,"memory":1000000000,"free":1000000000,"speed":1,"cached":0,"pools":0}"#
    ));
    let error = check(&format!("\"http://{old}\""), "");
    assert!(
        error.contains("0.0.9 with version 6.1 of llama.cpp's RPC") && error.contains("update"),
        "{error}"
    );
    let bare = serve("\x00\x01\x02 not HTTP");
    let error = check(&format!("\"http://{bare}\""), "");
    assert!(error.contains("not llama.cpp's own rpc-server"), "{error}");
}

/// Answers every connection with the same bytes.
fn serve(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    address
}

#[tokio::test]
async fn a_worker_lets_in_whom_it_should() {
    let _alone = alone();
    let worker = Worker::start(&["--memory", "100M", "--token", "secret"]);
    let client = reqwest::Client::new();
    let url = |path: &str| format!("{}{path}", worker.url());
    assert_eq!(client.get(url("/health")).send().await.unwrap().status(), 200);
    for path in ["/v1/worker", "/v1/worker/rpc"] {
        assert_eq!(client.get(url(path)).send().await.unwrap().status(), 401);
        assert_eq!(client.get(url(path)).bearer_auth("guess").send().await.unwrap().status(), 401);
    }
    let facts: Value =
        client.get(url("/v1/worker")).bearer_auth("secret").send().await.unwrap().json().await.unwrap();
    assert_eq!((facts["memory"].as_u64(), facts["pools"].as_u64()), (Some(100 << 20), Some(0)));
    // Not a tunnel: told so.
    let plain = client.get(url("/v1/worker/rpc")).bearer_auth("secret").send().await.unwrap();
    assert_eq!(plain.status(), 400);
    // Without a token, other machines are not let in; with a list, only those on it.
    let done = tightwad(&["worker", "--listen", "0.0.0.0:0"]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("set a token"));
    let closed = Worker::start(&["--memory", "100M", "--allow", "10.99.0.0/16"]);
    let refused = client.get(format!("{}/v1/worker", closed.url())).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let done = tightwad(&["worker", "--allow", "somewhere"]);
    assert_eq!(done.status.code(), Some(2));
}

#[tokio::test]
async fn models_are_swapped_while_the_host_runs() {
    let _alone = alone();
    // Enough for one of the two models, not for both.
    let worker = Worker::start(&["--memory", "170M", "--token", "t"]);
    let pool = |name: &str, path: &std::path::Path, more: &str| {
        format!(
            "tw.pooling {{ model = \"{}\", name = \"{name}\", here = false, context = 512, slots = 2, workers = {{ {{ url = \"{}\", token = \"t\" }} }}, load = \"demand\"{more} }}",
            path.display(),
            worker.url()
        )
    };
    let script = format!(
        "local tw = require \"tightwad\"\nlocal here = tw.model {{ path = \"{}\", name = \"here\", context = 512, threads = 1 }}\nreturn tw.serve {{ models = {{ here = here, one = {}, two = {} }} }}",
        smollm2().display(),
        pool("one", &smollm2(), ""),
        pool("two", &smollm2_q2(), ", ttl = 2"),
    );
    let server = Server::start(&script);
    let state = async |name: &str| {
        let (_, text) = server.get("/v1/tightwad/status").await;
        let status: Value = serde_json::from_str(&text).unwrap();
        let models = status["models"].as_array().unwrap().clone();
        models.into_iter().find(|model| model["model"] == name).unwrap()["state"].as_str().unwrap().to_owned()
    };
    let command = |arguments: &[&str]| {
        let url = format!("http://{}", server.address);
        let done = tightwad(&[&["model"], arguments, &["--url", &url]].concat());
        let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.code(), format!("{out}{error}"))
    };
    assert_eq!(state("one").await, "unloaded");
    let (here, _) = server.ask("here", PROMPTS[0], json!({})).await;
    let (one, _) = server.ask("one", PROMPTS[0], json!({})).await;
    assert_eq!(one, here);
    assert_eq!(state("one").await, "ready");

    // A request on the old model goes on while the new one waits for it.
    let long = json!({"max_tokens": 200, "logit_bias": {"0": -100, "2": -100}});
    let old = server.ask("one", PROMPTS[1], long.clone());
    let new = async {
        sleep(Duration::from_millis(300)).await;
        server.ask("two", PROMPTS[0], json!({})).await
    };
    let ((old, report), (two, _)) = tokio::join!(old, new);
    assert_eq!(report["exact"], true);
    assert_eq!((state("one").await.as_str(), state("two").await.as_str()), ("unloaded", "ready"));
    let (truth, _) = server.ask("here", PROMPTS[1], long).await;
    assert_eq!(old, truth);
    assert_ne!(two, "");

    // Nobody uses it: it goes by itself.
    let start = Instant::now();
    while state("two").await != "unloaded" {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", server.logged());
        sleep(Duration::from_millis(100)).await;
    }
    // By hand.
    let (code, said) = command(&["load", "one"]);
    assert!(code == Some(0) && said.contains("one is ready"), "{said}");
    let (_, said) = command(&["list"]);
    assert!(said.contains("one: ready") && said.contains("two: unloaded"), "{said}");
    let (code, said) = command(&["unload", "one"]);
    assert!(code == Some(0) && said.contains("one is unloaded"), "{said}");
    let (code, said) = command(&["load", "three"]);
    assert!(code == Some(1) && said.contains("there is no model 'three'"), "{said}");
}

#[test]
fn a_plan_is_a_table_that_says_why_not() {
    let _alone = alone();
    let worker = Worker::start(&["--memory", "2G", "--token", "t"]);
    let (model, url) = (smollm2().display().to_string(), worker.url());
    let plan = |more: &[&str]| {
        let done = tightwad(&[&["pool", "plan", &model, "--worker", &url, "--token", "t"], more].concat());
        let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.code(), format!("{out}{error}"))
    };
    let (code, table) = plan(&["--no-local"]);
    assert!(code == Some(0) && table.contains("0-29") && table.contains("output head"), "{table}");
    let (code, error) = plan(&["--no-local", "--context", "8192", "--slots", "64"]);
    assert!(code == Some(1) && error.contains("are missing") && error.contains("lower `context`"), "{error}");
    let (_, json) = plan(&["--no-local", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["parts"][0]["layers"], 30);
}
