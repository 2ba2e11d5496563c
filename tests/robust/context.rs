//! How long a conversation may be by default.

use serde_json::{Value, json};

use crate::support::{Node, Script, Server, share, small, smollm2, tightwad};

fn script(more: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "smollm2"{more} }}
return tw.serve {{ models = {{
  plain = target,
  fast = tw.speculation {{ target = target, drafters = tw.lookup {{}} }},
  own = function(req) return target:generate(req) end,
}} }}"#,
        smollm2().display()
    )
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

async fn listed(server: &Server) -> Vec<(String, Value)> {
    let (_, text) = server.get("/v1/models").await;
    let models: Value = serde_json::from_str(&text).unwrap();
    let one = |model: &Value| (model["id"].as_str().unwrap().to_owned(), model["context_length"].clone());
    models["data"].as_array().unwrap().iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_is_the_trained_length_and_takes_memory_only_when_it_is_used() {
    let _turn = share();
    let server = Server::start(&script(""));
    let expected = [("fast", json!(8192)), ("own", Value::Null), ("plain", json!(8192))];
    assert_eq!(listed(&server).await, expected.map(|(name, context)| (name.to_owned(), context)));
    assert!(server.logged().contains("context=8192"), "{}", server.logged());
    // Eight full caches take 1.5 GB.
    let before = resident(server.process.id());
    assert!(before < 700 << 20, "{before} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_of_an_agent_is_answered() {
    let _turn = share();
    let server = Server::start(&format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ m = tw.model {{ path = \"{}\" }} }} }}",
        small().display()
    ));
    assert_eq!(listed(&server).await, [("m".to_owned(), json!(32_768))]);
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(1000);
    let (status, answer) =
        server.post("/v1/completions", &json!({"model": "m", "prompt": text, "max_tokens": 4})).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 9_000, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_are_given_as_numbers_or_with_a_unit() {
    let _turn = share();
    for (context, tokens) in [("2048", 2048), ("\"2k\"", 2048), ("\"1536\"", 1536)] {
        let server = Server::start(&script(&format!(", context = {context}")));
        assert_eq!(listed(&server).await[2], ("plain".to_owned(), json!(tokens)));
    }
    for (context, words) in
        [("\"big\"", "such as \"32k\", not the string 'big'"), ("\"0\"", "'0'"), ("\"-1k\"", "'-1k'")]
    {
        let script = Script::new(&script(&format!(", context = {context}")));
        let done = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(
            error.contains("script.lua:2: 'context' in tw.model must be") && error.contains(words),
            "{error}"
        );
    }
    let path = smollm2();
    let node = Node::start(&[("m", &path)], &["--context", "1k"]);
    let client = tightwad_net::machine_client().build().unwrap();
    let facts = client.get(format!("{}/v1/node", node.url())).send().await.unwrap().text().await.unwrap();
    assert!(facts.contains("\"context\":1024"), "{facts}");
}
