//! What goes wrong between machines costs a pause, never a token. Faults are real: processes are killed,
//! links are cut, garbled and slowed down while streams run.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tightwad_netlab::{Faults, Proxy};
use tokio::time::sleep;

use crate::support::{Begun, Node, PROMPTS, Server, share, small, small_drafter};

/// Streams at once.
const AT_ONCE: usize = 4;

/// One thread each: threads of two processes that wait for each other on the same cores slow both down.
const NODE: [&str; 4] = ["--context", "1024", "--threads", "1"];

/// The small model here and behind a link; `more` are fields of `tw.node`.
fn script(link: &Proxy, more: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{}", name = "here", context = 1024, threads = 1 }}
local away = tw.node {{ url = "http://{}", model = "smollm2"{more} }}
return tw.serve {{ models = {{
  here = here,
  plain = away,
  fast = tw.speculation {{ target = away, draft = tw.lookup {{}} }},
  drafted = tw.speculation {{ target = here, draft = away }},
}} }}"#,
        small().display(),
        link.address()
    )
}

fn body(model: &str, request: usize, tokens: u32) -> Value {
    let temperature = [0.0, 0.8][request / PROMPTS.len() % 2];
    json!({"model": model, "messages": [{"role": "user", "content": PROMPTS[request % PROMPTS.len()]}],
        "max_tokens": tokens, "temperature": temperature, "top_p": 0.95, "seed": 5, "stream": true,
        "logit_bias": {"0": -100, "2": -100}})
}

/// The text of a stream, and its `tightwad` object.
async fn streamed(server: &Server, body: &Value) -> (String, Value) {
    ended(server, server.begin(body).await).await
}

/// The same of one that is under way.
async fn ended(server: &Server, stream: Begun) -> (String, Value) {
    let events = stream.rest().await;
    if let Some(error) = events.iter().find(|event| event["error"].is_object()) {
        panic!("{error}\n{}", server.logged());
    }
    let text = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    let report = events.iter().rev().find(|event| event["tightwad"].is_object());
    (text, report.map(|event| event["tightwad"].clone()).unwrap_or_default())
}

/// What each of the requests must be answered with.
async fn truths(server: &Server, tokens: u32) -> Vec<String> {
    let mut truths = Vec::new();
    for request in 0..2 * PROMPTS.len() {
        truths.push(streamed(server, &body("here", request, tokens)).await.0);
    }
    truths
}

/// One fault after the other, until `done`.
async fn under_fire(node: &mut Node, faults: &Arc<Faults>, done: &AtomicUsize, requests: usize) -> usize {
    let (mut rounds, start) = (0, Instant::now());
    while done.load(Ordering::Relaxed) < requests {
        println!("{:?}: {} answered; fault {rounds}", start.elapsed(), done.load(Ordering::Relaxed));
        match rounds % 7 {
            0 => {
                node.kill();
                sleep(Duration::from_millis(300)).await;
                node.again();
            }
            1 => {
                faults.cut(true);
                sleep(Duration::from_secs(3)).await;
                faults.cut(false);
            }
            2 => {
                faults.garble_every(9);
                sleep(Duration::from_millis(1500)).await;
                faults.garble_every(0);
            }
            3 => {
                faults.truncate_every(11);
                sleep(Duration::from_millis(1500)).await;
                faults.truncate_every(0);
            }
            // Runs a tenth of the time.
            4 => {
                for _ in 0..20 {
                    node.process.as_ref().unwrap().signal("-STOP");
                    sleep(Duration::from_millis(90)).await;
                    node.process.as_ref().unwrap().signal("-CONT");
                    sleep(Duration::from_millis(10)).await;
                }
            }
            5 => {
                node.kill();
                node.again_with(&small_drafter());
                sleep(Duration::from_secs(1)).await;
                node.kill();
                node.again();
            }
            _ => {
                faults.refuse(true);
                sleep(Duration::from_millis(700)).await;
                faults.refuse(false);
            }
        }
        rounds += 1;
        // Some requests go through between two faults.
        let next = done.load(Ordering::Relaxed) + 12;
        while done.load(Ordering::Relaxed) < next.min(requests) {
            sleep(Duration::from_millis(20)).await;
        }
    }
    rounds
}

/// Requests under fire, with fields `more` of `tw.node`: all are answered, and rightly. What the host logged.
async fn all_right_under_fire(more: &str, requests: usize) -> String {
    small_drafter();
    let mut node = Node::start(&[("smollm2", &small())], &NODE);
    let link = Proxy::start("127.0.0.1:0".parse().unwrap(), node.address).await.unwrap();
    let server = Arc::new(Server::start(&script(&link, more)));
    let truths = Arc::new(truths(&server, 60).await);
    let (next, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let streams: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (server, truths) = (server.clone(), truths.clone());
            let (next, done) = (next.clone(), done.clone());
            tokio::spawn(async move {
                loop {
                    let request = next.fetch_add(1, Ordering::Relaxed);
                    if request >= requests {
                        return;
                    }
                    let model = ["plain", "fast", "drafted"][request % 3];
                    let (text, report) = streamed(&server, &body(model, request, 60)).await;
                    assert_eq!(text, truths[request % truths.len()], "{model}: {report}");
                    assert_eq!(report["exact"], true, "{report}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let start = Instant::now();
    let work = async {
        for stream in streams {
            stream.await.unwrap();
        }
    };
    tokio::select! {
        () = work => {}
        () = async {
            let rounds = under_fire(&mut node, link.faults(), &done, requests).await;
            println!("{rounds} faults in {:.0} s", start.elapsed().as_secs_f64());
            std::future::pending::<()>().await;
        } => {}
    }
    assert_eq!(done.load(Ordering::Relaxed), requests);
    assert!(server.metric("tightwad_node_lost_total").await > 0.0);
    server.logged()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_requests_under_fire_are_all_answered_and_all_right() {
    let _turn = share();
    let log = all_right_under_fire(", patience = 60", 200).await;
    // The log says what happened.
    for words in ["trying again", "the session was opened again", "serves another model"] {
        assert!(log.contains(words), "'{words}' is not in the log:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_target_that_stands_by_they_are_too() {
    let _turn = share();
    let log = all_right_under_fire(", fallback = here", 200).await;
    assert!(log.contains("the target is lost; the next one goes on"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_gone_for_good_is_followed_by_the_next_one_in_the_same_stream() {
    let _turn = share();
    let mut node = Node::start(&[("smollm2", &small())], &NODE);
    let link = Proxy::start("127.0.0.1:0".parse().unwrap(), node.address).await.unwrap();
    let server = Arc::new(Server::start(&script(&link, ", fallback = here")));
    let truths = truths(&server, 300).await;
    for model in ["plain", "fast"] {
        let begun = join_all((0..AT_ONCE).map(|request| {
            let server = server.clone();
            async move { server.begin(&body(model, request, 300)).await }
        }));
        let streams = begun.await;
        let start = Instant::now();
        node.kill();
        let ends = join_all(streams.into_iter().map(|stream| ended(&server, stream))).await;
        for (request, (text, report)) in ends.into_iter().enumerate() {
            assert_eq!(text, truths[request], "{model}: {report}");
            // The one that stood by has the same weights.
            assert_eq!(report["exact"], true);
        }
        println!("{model}: all ended {:.1} s after the kill", start.elapsed().as_secs_f64());
        let log = server.logged();
        assert!(log.contains("the target is lost; the next one goes on"), "{log}");
        // While it is known to be gone, nobody waits for it.
        let (text, _) = streamed(&server, &body(model, 0, 300)).await;
        assert_eq!(text, truths[0]);
        node.again();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_drafter_is_left_out_and_a_lost_target_without_others_is_an_error() {
    let _turn = share();
    let mut node = Node::start(&[("smollm2", &small())], &NODE);
    let link = Proxy::start("127.0.0.1:0".parse().unwrap(), node.address).await.unwrap();
    let server = Server::start(&script(&link, ", patience = 1"));
    let (truth, _) = streamed(&server, &body("here", 0, 60)).await;
    node.kill();
    let (text, report) = streamed(&server, &body("drafted", 0, 60)).await;
    assert_eq!(text, truth, "{report}");
    let mut lost = body("plain", 0, 60);
    lost["stream"] = json!(false);
    let (status, answer) = server.post("/v1/chat/completions", &lost).await;
    assert_eq!(status, 503, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("node http://"), "names the node: {message}");
    // It comes back by itself.
    node.again();
    sleep(Duration::from_secs(2)).await;
    let (text, _) = streamed(&server, &body("plain", 0, 60)).await;
    assert_eq!(text, truth);
}
