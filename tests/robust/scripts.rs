//! Scripts that compute forever, and servers that must end nevertheless.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Script, Server, one_core, small_model, smollm2, tightwad};

/// A pattern that takes practically forever, in a C function where the interpreter calls no hook.
const FREEZE: &str = "return tostring((\"a\"):rep(40):find((\".-\"):rep(14) .. \"b\"))";

fn script(model: &Path) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "target", context = 1024, threads = 1 }}
return tw.serve {{ models = {{
  plain = target,
  good = function(req) return target:generate(req) end,
  twice = function(req)
    local first = target:complete(req, {{ max_tokens = 4 }})
    return target:generate(req)
  end,
  freezes = function(req) {FREEZE} end,
  moves = function(req) table.move({{}}, 1, 1 << 40, 2) end,
  yields = function(req) while true do coroutine.yield() end end,
}} }}"#,
        model.display()
    )
}

/// Checks that a call of the endless function `model` ends with an error.
async fn check_endless_call(server: &Server, model: &str) {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
    let start = Instant::now();
    let (status, answer) = server.post("/v1/chat/completions", &body).await;
    assert_eq!(status, 503, "{model}: {answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("computed for more than 1 s"), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(10), "{model}: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_function_does_not_block_other_requests() {
    let _permit = one_core();
    let mut server = Server::start(&script(&small_model()));
    let expected = server.ask("plain", "Why is the sky blue?", json!({})).await.0;
    for model in ["freezes", "moves", "yields", "freezes"] {
        let endless_call = check_endless_call(&server, model);
        let other_requests = async {
            for _ in 0..3 {
                let start = Instant::now();
                assert_eq!(server.get("/health").await.0, 200);
                assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
                for model in ["plain", "good", "twice"] {
                    assert_eq!(
                        server.ask(model, "Why is the sky blue?", json!({})).await.0,
                        expected,
                        "{model}"
                    );
                }
            }
        };
        tokio::join!(endless_call, other_requests);
    }
    server.process.signal("-TERM");
    let status = server.process.wait_for_exit(Duration::from_secs(10));
    assert!(status.is_some(), "frozen functions delayed the end: {}", server.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_calls_occupy_few_threads() {
    let _permit = one_core();
    let server = Server::start(&script(&small_model()));
    for _ in 0..7 {
        check_endless_call(&server, "freezes").await;
    }
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.process.id())).unwrap();
    let names =
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    let frozen = names.filter(|name| name.trim() == "lua").count();
    assert!(frozen <= 7, "{frozen} threads");
    server.ask("good", "Say hello.", json!({"max_tokens": 4})).await;
}

#[test]
fn endless_script_is_refused_when_it_loads() {
    for text in [
        "while true do coroutine.yield() end",
        "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
        "local tw = require 'tightwad' while true do tw.lookup {} end",
        FREEZE,
        "table.move({}, 1, 1 << 40, 2)",
        "return (\"x\"):rep(200000):match((\".-\"):rep(12) .. \"y\")",
    ] {
        let start = Instant::now();
        let script = Script::new(text);
        let output = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}: {error}");
        assert!(error.contains("computed for more than 1 s"), "{text}: {error}");
        assert!(start.elapsed() < Duration::from_secs(20), "{text}: {:?}", start.elapsed());
    }
}

#[test]
fn sandbox_refuses_finalizers_after_globals_change() {
    let finalizer =
        "setmetatable({}, { __gc = function() while true do end end }) for i = 1, 1e7 do local t = {} end";
    for statement in [
        "rawget = function() end",
        "type = function() return 'nil' end",
        "error = function() end",
        "rawget, type, error = nil, nil, nil",
        "local raw = rawget; rawget = function(t, k) if k == '__gc' then return nil end return raw(t, k) end",
    ] {
        let script = Script::new(&format!("{statement}\n{finalizer}"));
        let output = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{statement}: {error}");
        assert!(error.contains("'__gc' is not available"), "{statement}: {error}");
    }
}

/// A request for a stream that still runs when the server receives its signal.
fn long_stream() -> serde_json::Value {
    json!({
        "model": "plain", "messages": [{"role": "user", "content": "Count from 1 to 1000."}], "stream": true,
        "max_tokens": 900, "temperature": 0, "logit_bias": {"2": -100, "0": -100},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_timeout_ends_running_requests() {
    let _permit = one_core();
    let mut server = Server::start_with(&script(&smollm2()), &["--drain-timeout", "1"]);
    let _stream = server.open_stream(&long_stream()).await;
    server.process.signal("-TERM");
    let start = Instant::now();
    let status = server.process.wait_for_exit(Duration::from_secs(10)).expect("the host did not end");
    assert_eq!(status.code(), Some(1));
    assert!(start.elapsed() > Duration::from_millis(700), "{:?}", start.elapsed());
    assert!(server.log_text().contains("the drain timeout"), "{}", server.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_timeout_ends_streams_with_an_error_and_done() {
    let _permit = one_core();
    let mut server = Server::start_with(&script(&smollm2()), &["--drain-timeout", "2"]);
    let stream = server.open_stream(&long_stream()).await;
    server.process.signal("-TERM");
    let events = stream.into_events().await;
    assert_eq!(events.last().unwrap()["error"]["code"], "shutting_down");
    let status = server.process.wait_for_exit(Duration::from_secs(10)).expect("the host did not end");
    assert_eq!(status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn second_signal_ends_the_host_at_once() {
    let _permit = one_core();
    let mut server = Server::start(&script(&smollm2()));
    let _stream = server.open_stream(&long_stream()).await;
    server.process.signal("-TERM");
    server.process.wait_for_log("A second signal ends the process at once", 10).await;
    server.process.signal("-TERM");
    let status = server.process.wait_for_exit(Duration::from_secs(5)).expect("the host did not end");
    assert_eq!(status.code(), Some(1));
}
