//! A misbehaving plugin delays a request, but never changes its answer.
use serde_json::json;

use crate::support::{PROMPTS, Script, Server, one_core, repository_root, small_model, tightwad};

fn fixture(name: &str) -> String {
    repository_root().join(format!("plugins/fixtures/dist/{name}.wasm")).display().to_string()
}

fn script(plugin: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "target", context = 1024, threads = 1 }}
return tw.serve {{ models = {{
  plain = target,
  sick = tw.speculation {{ target = target, drafters = tw.lookup {{}}, driver = "{plugin}" }},
  sound = tw.speculation {{ target = target, drafters = tw.lookup {{}} }},
}} }}"#,
        small_model().display()
    )
}

#[tokio::test]
async fn misbehaving_plugin_keeps_answers_exact() {
    let _permit = one_core();
    for (name, message_part) in [
        ("loop-forever", "longer than 250 ms in mode.run"),
        ("allocate", "ran out of memory in mode.run"),
        ("panic", "5 tokens were enough"),
        ("third-round", "trapped in mode.run"),
        ("early-return", "returned before the target was finished"),
        ("chatter", "host calls in mode.run"),
    ] {
        let server = Server::start(&script(&fixture(name)));
        let (expected, _) = server.ask("plain", PROMPTS[1], json!({})).await;
        for _ in 0..2 {
            let (text, report) = server.ask("sick", PROMPTS[1], json!({})).await;
            assert_eq!(text, expected, "{name}");
            assert_eq!(report["exact"], true);
            let fallback = report["fallback"].as_str().unwrap();
            assert!(fallback.contains(message_part), "{name}: {fallback}");
            assert!(
                fallback.contains(&format!("{name}@0.1.0")),
                "{fallback} does not name plugin and version"
            );
        }
        let (text, report) = server.ask("sound", PROMPTS[1], json!({})).await;
        assert_eq!(text, expected);
        assert!(report["fallback"].is_null());
        assert_eq!(server.metric("tightwad_mode_fallbacks_total").await, 2.0);
    }
}

#[test]
fn script_load_refuses_a_file_that_is_not_a_plugin() {
    let script_file = Script::new("");
    let nonsense = script_file.folder().join("not-wasm.wasm");
    std::fs::write(&nonsense, "this is text").unwrap();
    let core = script_file.folder().join("core.wasm");
    std::fs::write(&core, b"\0asm\x01\0\0\0").unwrap();
    for (plugin, message_part) in [
        (fixture("missing-export"), "does not export"),
        (
            fixture("other-version"),
            "was built for contract tightwad:plugin@0.2.0. This host loads contract tightwad:plugin@0.1.0",
        ),
        (nonsense.display().to_string(), "not WebAssembly"),
        (core.display().to_string(), "core module"),
        ("no-such-plugin".to_owned(), "built-in plugins of this kind are speculation"),
        (script_file.folder().join("gone.wasm").display().to_string(), "cannot read"),
    ] {
        script_file.write(&script(&plugin));
        let output = tightwad(&["run", &script_file.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(message_part), "'{message_part}' is not in: {error}");
        assert!(error.contains("script.lua:5: "), "{error} does not name the line");
    }
}

#[tokio::test]
async fn file_in_the_plugins_dir_replaces_a_built_in_plugin() {
    let _permit = one_core();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("early-return"), folder.path().join("speculation.wasm")).unwrap();
    let server =
        Server::start_with(&script("speculation"), &["--plugins-dir", &folder.path().display().to_string()]);
    let (_, report) = server.ask("sound", PROMPTS[1], json!({})).await;
    assert_eq!(report["plugins"][0]["name"], "early-return@0.1.0");
}
