//! The context length: its default and its units.

use serde_json::{Value, json};

use crate::support::{Node, Script, Server, one_core, small_model, smollm2, tightwad};

/// Serves SmolLM2. `fields` are further fields of `tw.model`.
fn script(fields: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "smollm2"{fields} }}
return tw.serve {{ models = {{
  plain = target,
  fast = tw.speculation {{ target = target, drafters = tw.lookup {{}} }},
  own = function(req) return target:generate(req) end,
}} }}"#,
        smollm2().display()
    )
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The models of a server with their `context_length`.
async fn context_lengths(server: &Server) -> Vec<(String, Value)> {
    let (_, text) = server.get("/v1/models").await;
    let models: Value = serde_json::from_str(&text).unwrap();
    let entry = |model: &Value| (model["id"].as_str().unwrap().to_owned(), model["context_length"].clone());
    models["data"].as_array().unwrap().iter().map(entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn default_context_is_the_trained_length_and_uses_memory_lazily() {
    let _permit = one_core();
    let server = Server::start(&script(""));
    let expected = [("fast", json!(8192)), ("own", Value::Null), ("plain", json!(8192))];
    assert_eq!(context_lengths(&server).await, expected.map(|(name, context)| (name.to_owned(), context)));
    assert!(server.log_text().contains("context=8192"), "{}", server.log_text());
    // Eight full KV caches take 1.5 GB.
    let bytes = resident_bytes(server.process.id());
    assert!(bytes < 700 << 20, "{bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn default_context_fits_a_long_first_message() {
    let _permit = one_core();
    let server = Server::start(&format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ m = tw.model {{ path = \"{}\" }} }} }}",
        small_model().display()
    ));
    assert_eq!(context_lengths(&server).await, [("m".to_owned(), json!(32_768))]);
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(1000);
    let (status, answer) =
        server.post("/v1/completions", &json!({"model": "m", "prompt": text, "max_tokens": 4})).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 9_000, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn context_accepts_numbers_and_units() {
    let _permit = one_core();
    for (context, tokens) in [("2048", 2048), ("\"2k\"", 2048), ("\"1536\"", 1536)] {
        let server = Server::start(&script(&format!(", context = {context}")));
        assert_eq!(context_lengths(&server).await[2], ("plain".to_owned(), json!(tokens)));
    }
    for (context, message_part) in
        [("\"big\"", "such as \"32k\", not the string 'big'"), ("\"0\"", "'0'"), ("\"-1k\"", "'-1k'")]
    {
        let script = Script::new(&script(&format!(", context = {context}")));
        let output = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            error.contains("script.lua:2: 'context' in tw.model must be") && error.contains(message_part),
            "{error}"
        );
    }
    let path = smollm2();
    let node = Node::start(&[("m", &path)], &["--context", "1k"]);
    let client = tightwad_net::machine_client().build().unwrap();
    let info = client.get(format!("{}/v1/node", node.url())).send().await.unwrap().text().await.unwrap();
    assert!(info.contains("\"context\":1024"), "{info}");
}
