//! Plugins that misbehave cost a request time, never its answer.
use serde_json::json;

use crate::support::{PROMPTS, Script, Server, root, share, small, tightwad};

fn fixture(name: &str) -> String {
    root().join(format!("plugins/fixtures/dist/{name}.wasm")).display().to_string()
}

fn script(plugin: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "target", context = 1024, threads = 1 }}
return tw.serve {{ models = {{
  plain = target,
  sick = tw.speculation {{ target = target, draft = tw.lookup {{}}, plugin = "{plugin}" }},
  sound = tw.speculation {{ target = target, draft = tw.lookup {{}} }},
}} }}"#,
        small().display()
    )
}

#[tokio::test]
async fn whatever_a_plugin_does_the_answer_is_exact_and_the_next_request_works() {
    let _turn = share();
    for (name, words) in [
        ("loop-forever", "longer than 250 ms in mode.run"),
        ("allocate", "ran out of memory in mode.run"),
        ("panic", "5 tokens were enough"),
        ("third-round", "trapped in mode.run"),
        ("early-return", "returned before the target was finished"),
        ("chatter", "host calls in mode.run"),
    ] {
        let server = Server::start(&script(&fixture(name)));
        let (plain, _) = server.ask("plain", PROMPTS[1], json!({})).await;
        for _ in 0..2 {
            let (text, report) = server.ask("sick", PROMPTS[1], json!({})).await;
            assert_eq!(text, plain, "{name}");
            assert_eq!(report["exact"], true);
            let fallback = report["fallback"].as_str().unwrap();
            assert!(fallback.contains(words), "{name}: {fallback}");
            assert!(fallback.contains(&format!("{name}@0.1.0")), "names plugin and version: {fallback}");
        }
        let (text, report) = server.ask("sound", PROMPTS[1], json!({})).await;
        assert_eq!(text, plain);
        assert!(report["fallback"].is_null());
        assert_eq!(server.metric("tightwad_mode_fallbacks_total").await, 2.0);
    }
}

#[test]
fn what_is_no_plugin_is_refused_when_the_script_loads() {
    let text = Script::new("");
    let nonsense = text.folder().join("not-wasm.wasm");
    std::fs::write(&nonsense, "this is text").unwrap();
    let core = text.folder().join("core.wasm");
    std::fs::write(&core, b"\0asm\x01\0\0\0").unwrap();
    for (plugin, words) in [
        (fixture("missing-export"), "does not export"),
        (fixture("other-version"), "tightwad:plugin/mode@0.2.0"),
        (nonsense.display().to_string(), "not WebAssembly"),
        (core.display().to_string(), "core module"),
        ("no-such-plugin".to_owned(), "built in are speculation"),
        (text.folder().join("gone.wasm").display().to_string(), "cannot read"),
    ] {
        text.write(&script(&plugin));
        let done = tightwad(&["run", &text.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{error}");
        assert!(error.contains(words), "'{words}' is not in: {error}");
        assert!(error.contains("script.lua:5: "), "names the line: {error}");
    }
}

#[tokio::test]
async fn a_file_in_the_plugins_folder_replaces_a_built_in_one() {
    let _turn = share();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("early-return"), folder.path().join("speculation.wasm")).unwrap();
    let server = Server::with(&script("speculation"), &["--plugins", &folder.path().display().to_string()]);
    let (_, report) = server.ask("sound", PROMPTS[1], json!({})).await;
    assert_eq!(report["plugins"][0]["name"], "early-return@0.1.0");
}
