//! Faults between machines delay an answer, but never change its tokens. The faults are real: while streams run,
//! processes are killed and paused, and links stall, corrupt bytes, truncate data and refuse connections.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tightwad_netlab::{Faults, Proxy};
use tokio::time::sleep;

use crate::support::{Node, OpenStream, PROMPTS, Server, one_core, small_drafter, small_model};

/// The number of concurrent streams.
const STREAMS: usize = 4;

/// One thread per process: processes that wait for each other on the same cores slow each other down.
const NODE_ARGUMENTS: [&str; 4] = ["--context", "1024", "--threads", "1"];

/// Serves the small model of this machine and of a node behind `link`. `fields` are further fields of `tw.node`.
fn script(link: &Proxy, fields: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{}", name = "here", context = 1024, threads = 1 }}
local away = tw.node {{ url = "http://{}", model = "smollm2"{fields} }}
return tw.serve {{ models = {{
  here = here,
  plain = away,
  fast = tw.speculation {{ target = away, drafters = tw.lookup {{}} }},
  drafted = tw.speculation {{ target = here, drafters = away }},
}} }}"#,
        small_model().display(),
        link.address()
    )
}

fn body(model: &str, request: usize, tokens: u32) -> Value {
    let temperature = [0.0, 0.8][request / PROMPTS.len() % 2];
    json!({"model": model, "messages": [{"role": "user", "content": PROMPTS[request % PROMPTS.len()]}],
        "max_tokens": tokens, "temperature": temperature, "top_p": 0.95, "seed": 5, "stream": true,
        "logit_bias": {"0": -100, "2": -100}})
}

/// Streams an answer. Returns its text and its `tightwad` object.
async fn stream_answer(server: &Server, body: &Value) -> (String, Value) {
    finish_stream(server, server.open_stream(body).await).await
}

/// Reads an open stream to its end. Returns the text and the `tightwad` object.
async fn finish_stream(server: &Server, stream: OpenStream) -> (String, Value) {
    let events = stream.into_events().await;
    if let Some(error) = events.iter().find(|event| event["error"].is_object()) {
        panic!("{error}\n{}", server.log_text());
    }
    let text = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    let report = events.iter().rev().find(|event| event["tightwad"].is_object());
    (text, report.map(|event| event["tightwad"].clone()).unwrap_or_default())
}

/// The answers of the local model to all requests.
async fn expected_answers(server: &Server, tokens: u32) -> Vec<String> {
    let mut answers = Vec::new();
    for request in 0..2 * PROMPTS.len() {
        answers.push(stream_answer(server, &body("here", request, tokens)).await.0);
    }
    answers
}

/// Makes one fault after the other until `answered` reaches `requests`. Returns the number of faults.
async fn make_faults(
    node: &mut Node,
    faults: &Arc<Faults>,
    answered: &AtomicUsize,
    requests: usize,
) -> usize {
    let (mut count, start) = (0, Instant::now());
    while answered.load(Ordering::Relaxed) < requests {
        println!("{:?}: {} answered; fault {count}", start.elapsed(), answered.load(Ordering::Relaxed));
        match count % 7 {
            0 => {
                node.kill();
                sleep(Duration::from_millis(300)).await;
                node.restart();
            }
            1 => {
                faults.stall(true);
                sleep(Duration::from_secs(3)).await;
                faults.stall(false);
            }
            2 => {
                faults.corrupt_every(9);
                sleep(Duration::from_millis(1500)).await;
                faults.corrupt_every(0);
            }
            3 => {
                faults.truncate_every(11);
                sleep(Duration::from_millis(1500)).await;
                faults.truncate_every(0);
            }
            // The process runs a tenth of the time.
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
                node.restart_with_model(&small_drafter());
                sleep(Duration::from_secs(1)).await;
                node.kill();
                node.restart();
            }
            _ => {
                faults.refuse(true);
                sleep(Duration::from_millis(700)).await;
                faults.refuse(false);
            }
        }
        count += 1;
        // Twelve requests succeed between two faults.
        let target = answered.load(Ordering::Relaxed) + 12;
        while answered.load(Ordering::Relaxed) < target.min(requests) {
            sleep(Duration::from_millis(20)).await;
        }
    }
    count
}

/// Sends requests while faults happen, and checks every answer. `fields` are further fields of `tw.node`.
/// Returns the host's log.
async fn check_answers_under_faults(fields: &str, requests: usize) -> String {
    small_drafter();
    let mut node = Node::start(&[("smollm2", &small_model())], &NODE_ARGUMENTS);
    let link = Proxy::start("127.0.0.1:0".parse().unwrap(), node.address).await.unwrap();
    let server = Arc::new(Server::start(&script(&link, fields)));
    let expected = Arc::new(expected_answers(&server, 60).await);
    let (next, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| {
            let (server, expected) = (server.clone(), expected.clone());
            let (next, answered) = (next.clone(), answered.clone());
            tokio::spawn(async move {
                loop {
                    let request = next.fetch_add(1, Ordering::Relaxed);
                    if request >= requests {
                        return;
                    }
                    let model = ["plain", "fast", "drafted"][request % 3];
                    let (text, report) = stream_answer(&server, &body(model, request, 60)).await;
                    assert_eq!(text, expected[request % expected.len()], "{model}: {report}");
                    assert_eq!(report["exact"], true, "{report}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let start = Instant::now();
    let all_answers = async {
        for stream in streams {
            stream.await.unwrap();
        }
    };
    tokio::select! {
        () = all_answers => {}
        () = async {
            let count = make_faults(&mut node, link.faults(), &answered, requests).await;
            println!("{count} faults in {:.0} s", start.elapsed().as_secs_f64());
            std::future::pending::<()>().await;
        } => {}
    }
    assert_eq!(answered.load(Ordering::Relaxed), requests);
    assert!(server.metric("tightwad_node_failed_calls_total").await > 0.0);
    server.log_text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_answers_200_requests_exactly_under_faults() {
    let _permit = one_core();
    let log = check_answers_under_faults(", wait_timeout = 60", 200).await;
    // The log reports each kind of fault.
    for message_part in ["retrying a call", "reopened the session", "serves other weights"] {
        assert!(log.contains(message_part), "'{message_part}' is not in the log:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_target_keeps_200_requests_exact_under_faults() {
    let _permit = one_core();
    let log = check_answers_under_faults(", fallback = here", 200).await;
    assert!(log.contains("target is lost; the next backend takes over"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_target_continues_a_stream_when_the_first_is_lost() {
    let _permit = one_core();
    let mut node = Node::start(&[("smollm2", &small_model())], &NODE_ARGUMENTS);
    let link = Proxy::start("127.0.0.1:0".parse().unwrap(), node.address).await.unwrap();
    let server = Arc::new(Server::start(&script(&link, ", fallback = here")));
    let expected = expected_answers(&server, 300).await;
    for model in ["plain", "fast"] {
        let opening = join_all((0..STREAMS).map(|request| {
            let server = server.clone();
            async move { server.open_stream(&body(model, request, 300)).await }
        }));
        let streams = opening.await;
        let start = Instant::now();
        node.kill();
        let answers = join_all(streams.into_iter().map(|stream| finish_stream(&server, stream))).await;
        for (request, (text, report)) in answers.into_iter().enumerate() {
            assert_eq!(text, expected[request], "{model}: {report}");
            // The standby target has the same weights.
            assert_eq!(report["exact"], true);
        }
        println!("{model}: all ended {:.1} s after the kill", start.elapsed().as_secs_f64());
        let log = server.log_text();
        assert!(log.contains("target is lost; the next backend takes over"), "{log}");
        // After the loss, a new request does not wait for the lost target.
        let (text, _) = stream_answer(&server, &body(model, 0, 300)).await;
        assert_eq!(text, expected[0]);
        node.restart();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_drafter_is_skipped_and_lost_sole_target_is_an_error() {
    let _permit = one_core();
    let mut node = Node::start(&[("smollm2", &small_model())], &NODE_ARGUMENTS);
    let link = Proxy::start("127.0.0.1:0".parse().unwrap(), node.address).await.unwrap();
    let server = Server::start(&script(&link, ", wait_timeout = 1"));
    let (expected, _) = stream_answer(&server, &body("here", 0, 60)).await;
    node.kill();
    let (text, report) = stream_answer(&server, &body("drafted", 0, 60)).await;
    assert_eq!(text, expected, "{report}");
    let mut request = body("plain", 0, 60);
    request["stream"] = json!(false);
    let (status, answer) = server.post("/v1/chat/completions", &request).await;
    assert_eq!(status, 503, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("node smollm2") && !message.contains("http"), "{message}");
    // The host finds the restarted node without help.
    node.restart();
    sleep(Duration::from_secs(2)).await;
    let (text, _) = stream_answer(&server, &body("plain", 0, 60)).await;
    assert_eq!(text, expected);
}
