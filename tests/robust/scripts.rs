//! Scripts that compute without an end, and servers that must end all the same.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Script, Server, share, small, smollm2, tightwad};

/// A pattern that takes longer than anyone waits, in a C function that no hook reaches.
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

async fn refused(server: &Server, model: &str) {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
    let start = Instant::now();
    let (status, answer) = server.post("/v1/chat/completions", &body).await;
    assert_eq!(status, 503, "{model}: {answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("computed for more than 1 s"), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(10), "{model}: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_function_is_given_up_and_everything_else_answers() {
    let _turn = share();
    let mut server = Server::start(&script(&small()));
    let truth = server.ask("plain", "Why is the sky blue?", json!({})).await.0;
    for model in ["freezes", "moves", "yields", "freezes"] {
        let frozen = refused(&server, model);
        let meanwhile = async {
            for _ in 0..3 {
                let start = Instant::now();
                assert_eq!(server.get("/health").await.0, 200);
                assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
                for model in ["plain", "good", "twice"] {
                    assert_eq!(
                        server.ask(model, "Why is the sky blue?", json!({})).await.0,
                        truth,
                        "{model}"
                    );
                }
            }
        };
        tokio::join!(frozen, meanwhile);
    }
    server.process.signal("-TERM");
    let ended = server.process.ended_within(Duration::from_secs(10));
    assert!(ended.is_some(), "frozen functions held up the end: {}", server.logged());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_never_end_are_few_and_hold_up_nobody_else() {
    let _turn = share();
    let server = Server::start(&script(&small()));
    for _ in 0..7 {
        refused(&server, "freezes").await;
    }
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.process.id())).unwrap();
    let names =
        threads.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    let frozen = names.filter(|name| name.trim() == "lua").count();
    assert!(frozen <= 7, "{frozen} threads");
    server.ask("good", "Say hello.", json!({"max_tokens": 4})).await;
}

#[test]
fn a_script_that_does_not_end_is_refused_when_it_is_loaded() {
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
        let done = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{text}: {error}");
        assert!(error.contains("computed for more than 1 s"), "{text}: {error}");
        assert!(start.elapsed() < Duration::from_secs(20), "{text}: {:?}", start.elapsed());
    }
}

#[test]
fn no_global_of_a_script_changes_what_the_sandbox_refuses() {
    let finalizer =
        "setmetatable({}, { __gc = function() while true do end end }) for i = 1, 1e7 do local t = {} end";
    for before in [
        "rawget = function() end",
        "type = function() return 'nil' end",
        "error = function() end",
        "rawget, type, error = nil, nil, nil",
        "local raw = rawget; rawget = function(t, k) if k == '__gc' then return nil end return raw(t, k) end",
    ] {
        let script = Script::new(&format!("{before}\n{finalizer}"));
        let done = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{before}: {error}");
        assert!(error.contains("'__gc' is not available"), "{before}: {error}");
    }
}

/// A stream that is still long when the server is told to end.
fn long() -> serde_json::Value {
    json!({
        "model": "plain", "messages": [{"role": "user", "content": "Count from 1 to 1000."}], "stream": true,
        "max_tokens": 900, "temperature": 0, "logit_bias": {"2": -100, "0": -100},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_for_running_requests_ends() {
    let _turn = share();
    let mut server = Server::with(&script(&smollm2()), &["--drain", "1"]);
    let _stream = server.begin(&long()).await;
    server.process.signal("-TERM");
    let start = Instant::now();
    let ended = server.process.ended_within(Duration::from_secs(10)).expect("the host did not end");
    assert_eq!(ended.code(), Some(1));
    assert!(start.elapsed() > Duration::from_millis(700), "{:?}", start.elapsed());
    assert!(server.logged().contains("1 s are over"), "{}", server.logged());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_host_at_once() {
    let _turn = share();
    let mut server = Server::start(&script(&smollm2()));
    let _stream = server.begin(&long()).await;
    server.process.signal("-TERM");
    server.process.until_logged("once more to stop at once", 10).await;
    server.process.signal("-TERM");
    let ended = server.process.ended_within(Duration::from_secs(5)).expect("the host did not end");
    assert_eq!(ended.code(), Some(1));
}
