//! Speculation returns exactly the output of the target, with every drafter.

use std::path::Path;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    PROMPTS, Server, all_cores, downloaded_model, one_core, repository_root, small_drafter, small_model,
    smollm2, smollm2_q2,
};

/// Serves `target` alone, with each drafter, with drafts of a fixed length, and with a driver that verifies nonsense.
/// The fixed length matters because the controller may find that no draft pays. `drafter` is the target at fewer bits.
fn script(target: &Path, drafter: &Path) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "target", context = 1024, threads = 1 }}
local q2 = tw.model {{ path = "{}", name = "q2", context = 1024, threads = 1 }}
local function fast(drafters, driver, settings)
  return tw.speculation {{ target = target, drafters = drafters, driver = driver, settings = settings }}
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
        repository_root().join("plugins/fixtures/dist/wrong-drafts.wasm").display(),
    )
}

const MODELS: [&str; 5] = ["lookup", "q2", "both", "always", "nonsense"];

fn sampling_settings() -> [Value; 2] {
    [json!({"temperature": 0}), json!({"temperature": 0.8, "top_p": 0.95, "seed": 77})]
}

#[tokio::test]
async fn speculation_returns_the_target_output_with_every_drafter() {
    let _permit = one_core();
    let server = Server::start(&script(&smollm2(), &smollm2_q2()));
    let mut accepted = 0;
    for settings in sampling_settings() {
        for prompt in &PROMPTS[..3] {
            let (expected, report) = server.ask("plain", prompt, settings.clone()).await;
            assert_eq!(report["mode"], "plain", "{report}");
            for model in MODELS {
                let (text, report) = server.ask(model, prompt, settings.clone()).await;
                assert_eq!(text, expected, "{model}, {settings}, {prompt}: {report}");
                assert_eq!(report["exact"], true);
                assert!(report["fallback"].is_null(), "{report}");
                accepted += report["accepted"].as_u64().unwrap();
            }
        }
    }
    assert!(accepted > 0, "no draft was ever accepted");
}

#[tokio::test]
async fn concurrent_requests_do_not_change_outputs() {
    let _permit = one_core();
    let server = Server::start(&script(&small_model(), &small_drafter()));
    for settings in sampling_settings() {
        let mut expected_answers = Vec::new();
        for prompt in PROMPTS {
            expected_answers.push(server.ask("plain", prompt, settings.clone()).await.0);
        }
        for model in MODELS {
            let requests = PROMPTS[..4].iter().map(|prompt| server.ask(model, prompt, settings.clone()));
            for ((text, _), expected) in join_all(requests).await.into_iter().zip(&expected_answers) {
                assert_eq!(&text, expected, "{model}, {settings}");
            }
        }
    }
}

#[tokio::test]
async fn penalties_schemas_and_logit_bias_keep_speculation_exact() {
    let _permit = one_core();
    let server = Server::start(&script(&smollm2(), &smollm2_q2()));
    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 20},
        "size": {"enum": ["small", "large"]}}, "required": ["city", "size"], "additionalProperties": false});
    let cases = [
        json!({"temperature": 0, "frequency_penalty": 1.2, "presence_penalty": 0.4, "repeat_penalty": 1.1}),
        json!({"temperature": 0.7, "response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}}),
        json!({"temperature": 0.9, "top_k": 20, "min_p": 0.05, "logit_bias": {"28": -100, "30": 5}}),
    ];
    for (index, settings) in cases.into_iter().enumerate() {
        let (expected, _) = server.ask("plain", "Describe Paris as JSON.", settings.clone()).await;
        if index == 1 {
            let value: Value = serde_json::from_str(&expected).unwrap();
            assert!(value["city"].is_string() && value["size"].is_string());
        }
        for model in MODELS {
            let (text, _) = server.ask(model, "Describe Paris as JSON.", settings.clone()).await;
            assert_eq!(text, expected, "{model}, {settings}");
        }
    }
}

#[tokio::test]
#[ignore = "needs the large models"]
async fn smaller_qwen_drafts_exactly_for_a_larger_one() {
    let _permit = all_cores();
    let script = format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "1.5b", context = 512, slots = 2 }}
local draft = tw.model {{ path = "{}", name = "0.5b", context = 512, slots = 2 }}
return tw.serve {{ models = {{
  plain = target, fast = tw.speculation {{ target = target, drafters = {{ draft, tw.lookup {{}} }} }},
}} }}"#,
        downloaded_model("qwen2.5-coder-1.5b-instruct.gguf").display(),
        downloaded_model("qwen2.5-coder-0.5b-instruct.gguf").display(),
    );
    let server = Server::start(&script);
    for (prompt, mut settings) in [PROMPTS[2], PROMPTS[4]].into_iter().zip(sampling_settings()) {
        settings["max_tokens"] = json!(24);
        let (expected, _) = server.ask("plain", prompt, settings.clone()).await;
        let (text, report) = server.ask("fast", prompt, settings.clone()).await;
        assert_eq!(text, expected, "{report}");
    }
}
