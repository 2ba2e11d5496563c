//! Speculation changes nothing, whatever drafts.

use std::path::Path;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{PROMPTS, Server, alone, model, root, share, small, small_drafter, smollm2, smollm2_q2};

/// `target` plain, with every drafter, with drafts whatever they cost (the controller may find that none pays), and
/// with a plugin that verifies nonsense. `drafter` is the same model at fewer bits.
fn script(target: &Path, drafter: &Path) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "target", context = 1024, threads = 1 }}
local q2 = tw.model {{ path = "{}", name = "q2", context = 1024, threads = 1 }}
local function fast(draft, plugin, settings)
  return tw.speculation {{ target = target, draft = draft, plugin = plugin, settings = settings }}
end
return tw.serve {{ models = {{
  plain = target,
  lookup = fast(tw.lookup {{}}),
  q2 = fast(q2),
  both = fast {{ tw.lookup {{}}, q2 }},
  always = fast({{ tw.lookup {{}}, q2 }}, nil, {{ fixed_draft = 4 }}),
  nonsense = fast(tw.lookup {{}}, "{}"),
}} }}"#,
        target.display(),
        drafter.display(),
        root().join("plugins/fixtures/dist/wrong-drafts.wasm").display(),
    )
}

const MODELS: [&str; 5] = ["lookup", "q2", "both", "always", "nonsense"];

fn settings() -> [Value; 2] {
    [json!({"temperature": 0}), json!({"temperature": 0.8, "top_p": 0.95, "seed": 77})]
}

#[tokio::test]
async fn every_drafter_gives_the_target_s_own_output() {
    let _turn = share();
    let server = Server::start(&script(&smollm2(), &smollm2_q2()));
    let mut accepted = 0;
    for settings in settings() {
        for prompt in &PROMPTS[..3] {
            let (plain, report) = server.ask("plain", prompt, settings.clone()).await;
            assert_eq!(report["mode"], "plain", "{report}");
            for model in MODELS {
                let (text, report) = server.ask(model, prompt, settings.clone()).await;
                assert_eq!(text, plain, "{model}, {settings}, {prompt}: {report}");
                assert_eq!(report["exact"], true);
                assert!(report["fallback"].is_null(), "{report}");
                accepted += report["accepted"].as_u64().unwrap();
            }
        }
    }
    assert!(accepted > 0, "no draft was ever accepted");
}

#[tokio::test]
async fn four_requests_at_once_change_nothing() {
    let _turn = share();
    let server = Server::start(&script(&small(), &small_drafter()));
    for settings in settings() {
        let mut plain = Vec::new();
        for prompt in PROMPTS {
            plain.push(server.ask("plain", prompt, settings.clone()).await.0);
        }
        for model in MODELS {
            let asked = PROMPTS[..4].iter().map(|prompt| server.ask(model, prompt, settings.clone()));
            for ((text, _), plain) in join_all(asked).await.into_iter().zip(&plain) {
                assert_eq!(&text, plain, "{model}, {settings}");
            }
        }
    }
}

#[tokio::test]
async fn penalties_schemas_and_logprobs_follow_the_proposals() {
    let _turn = share();
    let server = Server::start(&script(&smollm2(), &smollm2_q2()));
    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 20},
        "size": {"enum": ["small", "large"]}}, "required": ["city", "size"], "additionalProperties": false});
    let cases = [
        json!({"temperature": 0, "frequency_penalty": 1.2, "presence_penalty": 0.4, "repeat_penalty": 1.1}),
        json!({"temperature": 0.7, "response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}}),
        json!({"temperature": 0.9, "top_k": 20, "min_p": 0.05, "logit_bias": {"28": -100, "30": 5}}),
    ];
    for (index, settings) in cases.into_iter().enumerate() {
        let (plain, _) = server.ask("plain", "Describe Paris as JSON.", settings.clone()).await;
        if index == 1 {
            let value: Value = serde_json::from_str(&plain).unwrap();
            assert!(value["city"].is_string() && value["size"].is_string());
        }
        for model in MODELS {
            let (text, _) = server.ask(model, "Describe Paris as JSON.", settings.clone()).await;
            assert_eq!(text, plain, "{model}, {settings}");
        }
    }
}

#[tokio::test]
#[ignore = "needs the large models"]
async fn a_smaller_qwen_drafts_for_a_larger_one() {
    let _turn = alone();
    let script = format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "1.5b", context = 512, slots = 2 }}
local draft = tw.model {{ path = "{}", name = "0.5b", context = 512, slots = 2 }}
return tw.serve {{ models = {{
  plain = target, fast = tw.speculation {{ target = target, draft = {{ draft, tw.lookup {{}} }} }},
}} }}"#,
        model("qwen2.5-coder-1.5b-instruct.gguf").display(),
        model("qwen2.5-coder-0.5b-instruct.gguf").display(),
    );
    let server = Server::start(&script);
    for (prompt, mut settings) in [PROMPTS[2], PROMPTS[4]].into_iter().zip(settings()) {
        settings["max_tokens"] = json!(24);
        let (plain, _) = server.ask("plain", prompt, settings.clone()).await;
        let (fast, report) = server.ask("fast", prompt, settings.clone()).await;
        assert_eq!(fast, plain, "{report}");
    }
}
