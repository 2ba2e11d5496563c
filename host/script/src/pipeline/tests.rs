use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tightwad_core::{Prompt, relay};

use super::*;
use crate::fake_factory::FakeFactory;
use crate::loader::load_text;

const SCRIPT: &str = r#"
local tw = require "tightwad"
local m = tw.model{ path = "m.gguf" }
local calls = 0
return tw.serve{ models = {
  counts = function(request)
    calls = calls + 1
    m:generate(request)
    return " " .. calls
  end,
  fails = function() error("no luck") end,
} }
"#;

async fn ask(backend: &dyn Backend) -> (String, Result<Outcome, BackendError>) {
    let mut text = String::new();
    let request = Request { prompt: Prompt::Text("hi".into()), ..Request::default() };
    let outcome = relay(backend, request, |event| {
        text.push_str(&event.text);
        async { true }
    })
    .await;
    (text, outcome)
}

#[tokio::test]
async fn variables_of_a_function_live_from_call_to_call() {
    let text = SCRIPT.as_bytes().to_vec();
    let script = load_text("p.lua", text, Path::new("."), Arc::new(FakeFactory), &[]).await.unwrap();
    let [(_, counts), (_, fails)] = script.models.as_slice() else { panic!("{}", script.models.len()) };
    assert!(counts.as_generator().is_some());
    for call in 1..=2 {
        let (text, outcome) = ask(counts.as_ref()).await;
        assert_eq!((text, outcome.is_ok()), (format!("model: hi {call}"), true));
        let (text, outcome) = ask(fails.as_ref()).await;
        assert_eq!(text, "");
        assert_eq!(outcome.unwrap_err().to_string(), "fails failed: p.lua:11: no luck");
    }
}

/// Loads a script with the model `m` and these functions by name.
async fn functions(name: &str, models: &str) -> Vec<(String, tightwad_core::SharedBackend)> {
    let text = format!(
        "local tw = require 'tightwad'\nlocal m = tw.model{{ path = 'm.gguf' }}\nlocal kept = {{}}\n\
         return tw.serve{{ models = {{ {models} }} }}"
    );
    let script = load_text(name, text.into_bytes(), Path::new("."), Arc::new(FakeFactory), &[]).await;
    script.unwrap().models
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_function_does_not_delay_another() {
    let models = functions(
        "frozen.lua",
        "frozen = function() return tostring((\"a\"):rep(40):find((\".-\"):rep(14) .. \"b\")) end,
         good = function(req) return m:generate(req) end",
    )
    .await;
    let [(_, frozen), (_, good)] = models.as_slice() else { panic!("{}", models.len()) };
    let frozen = frozen.clone();
    let call = tokio::spawn(async move { ask(frozen.as_ref()).await.1 });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(good.as_ref()).await.0, "model: hi");
    }
    assert!(!call.is_finished(), "the frozen function has ended");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let error = call.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("computed for more than 1 s"), "{error}");
}

#[tokio::test]
async fn function_that_keeps_too_much_gets_new_variables() {
    let models = functions(
        "keeps.lua",
        "keeps = function() kept[#kept + 1] = (\"x\"):rep(45 << 20) return tostring(#kept) end,
         good = function() return tostring(#kept) end",
    )
    .await;
    let [(_, good), (_, keeps)] = models.as_slice() else { panic!("{}", models.len()) };
    let mut counts = Vec::new();
    for _ in 0..5 {
        let (text, outcome) = ask(keeps.as_ref()).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        counts.push(text.parse::<u32>().unwrap());
        assert_eq!(ask(good.as_ref()).await.0, "0", "another function");
    }
    assert_eq!(counts, [1, 2, 3, 1, 2]);
}

#[tokio::test]
async fn further_runs_of_a_script_get_the_same_backends() {
    let name = "return one.name .. two.name .. tw.speculation{ target = one, drafters = tw.lookup{} }.name";
    let text = format!(
        "local tw = require 'tightwad'\n\
         local one, two = tw.model{{ path = 'counted.gguf' }}, tw.model{{ path = 'counted.gguf' }}\n\
         return tw.serve{{ models = {{ a = function() {name} end, b = function() {name} end }} }}"
    );
    let script = load_text("runs.lua", text.into_bytes(), Path::new("."), Arc::new(FakeFactory), &[]).await;
    let models = script.unwrap().models;
    let (first, second) = (ask(models[0].1.as_ref()).await.0, ask(models[1].1.as_ref()).await.0);
    assert_eq!(first, second, "each function has a run of its own");
    assert_eq!(first, "model 0model 1speculation");
}
