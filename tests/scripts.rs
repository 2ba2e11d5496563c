//! Scripts: what they can do, and what is said when they cannot.
use serde_json::json;

use crate::support::{Script, Server, root, share, small, smollm2, smollm2_q2, tightwad};

/// Standard error of `run --check`, which fails.
fn refusal(text: &str) -> String {
    let script = Script::new(text);
    let done = tightwad(&["run", &script.path().display().to_string(), "--check"]);
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{error}");
    error
}

#[test]
fn mistakes_are_refused_at_their_line_with_the_mend() {
    let model = small().display().to_string();
    let cases = [
        (
            format!("tw.model {{ path = \"{model}\", contxt = 5 }}"),
            "script.lua:2: unknown key 'contxt' in tw.model; did you mean 'context'?",
        ),
        ("tw.model { path = \"gone.gguf\" }".to_owned(), "script.lua:2: cannot read the model file"),
        ("tw.model { path = 5 }".to_owned(), "'path' in tw.model must be a string"),
        (
            format!("tw.model {{ path = \"{model}\", context = \"big\" }}"),
            "'context' in tw.model must be a whole number, or a string such as \"32k\", not the string 'big'",
        ),
        ("tw.model {}".to_owned(), "tw.model needs 'path'"),
        ("tw.model(3)".to_owned(), "takes a table"),
        ("tw.modle {}".to_owned(), "attempt to call a nil value"),
        ("tw.speculation { target = tw.lookup {}, draft = tw.lookup {} }".to_owned(), "cannot verify"),
        ("tw.serve { models = { a = tw.lookup {} } }".to_owned(), "only drafts"),
        ("tw.serve { models = {} }".to_owned(), "'models' in tw.serve is empty"),
        ("tw.serve { models = { a = 5 } }".to_owned(), "must be a backend or a function, not the number 5"),
        ("do".to_owned(), "near <eof>"),
        ("return 5".to_owned(), "must end with `return tw.serve"),
        ("io.open(\"x\")".to_owned(), "attempt to index a nil value"),
        ("setmetatable({}, { __gc = print })".to_owned(), "'__gc' is not available"),
    ];
    for (line, words) in cases {
        let error = refusal(&format!("local tw = require \"tightwad\"\n{line}"));
        assert!(error.contains(words), "{line}\n'{words}' is not in: {error}");
    }
}

#[test]
fn presets_are_in_order() {
    let (big, small) = (smollm2().display().to_string(), smollm2_q2().display().to_string());
    for (preset, settings, serves) in [
        ("speculation", vec![format!("model={big}")], "smollm2"),
        ("consensus", vec![format!("model={big}"), format!("drafters={small},{big}")], "consensus"),
        ("gate", vec![format!("reviewer={big}"), format!("fleet={small}"), "review=both".to_owned()], "gate"),
    ] {
        let script = root().join(format!("scripts/{preset}.lua")).display().to_string();
        let mut arguments = vec!["run", &script, "--check"];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let done = tightwad(&arguments);
        let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success() && out.contains(serves), "{preset}: {out}{error}");
    }
}

#[test]
fn files_that_are_no_models_are_refused() {
    let script = Script::new("");
    let bytes = std::fs::read(small()).unwrap();
    std::fs::write(script.folder().join("cut.gguf"), &bytes[..5_000_000]).unwrap();
    std::fs::write(script.folder().join("text.gguf"), "hello").unwrap();
    for (file, words) in
        [("cut.gguf", "is not a whole GGUF model"), ("text.gguf", "does not begin with GGUF")]
    {
        script.write(&format!("require(\"tightwad\").model {{ path = \"{file}\" }}"));
        let done = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{error}");
        assert!(error.contains(words) && error.contains("script.lua:1"), "{error}");
    }
}

#[test]
fn loops_are_stopped_wherever_they_hide() {
    for text in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "coroutine.wrap(function() while true do end end)()",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "local t = setmetatable({}, { __index = function(t, k) while true do end end }) local x = t.x",
    ] {
        let error = refusal(text);
        assert!(error.contains("computed for more than 1 s"), "{text}: {error}");
    }
    for text in [
        "local s = string.rep('x', 1 << 30)",
        "local t = {} while true do t[#t + 1] = ('x'):rep(1 << 27) end",
    ] {
        let error = refusal(text);
        assert!(error.contains("memory"), "{text}: {error}");
    }
}

#[tokio::test]
async fn functions_route_show_and_complete() {
    let _turn = share();
    let text = format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "smollm2", context = 1024, threads = 1 }}
local fast = tw.speculation {{ target = target, draft = tw.lookup {{}} }}
return tw.serve {{ models = {{
  plain = target,
  routed = function(req)
    if #req.prompt < 20 then return target:generate(req, {{ max_tokens = 3 }}) end
    return fast:generate(req)
  end,
  two = function(req)
    local first = target:complete(req, {{ max_tokens = 4 }})
    req:emit("[" .. first.completion_tokens .. " " .. first.finish .. "] ")
    return fast:generate(req)
  end,
  text = function(req) return "just text, " .. req.model end,
  fails = function(req) local x = nil; return x.y end,
  refuses = function(req) return nil, "not today" end,
  endless = function(req) while true do pcall(function() while true do end end) end end,
  typo = function(req) return target:generate(req, {{ max_token = 3 }}) end,
}} }}"#,
        small().display()
    );
    let server = Server::with(&text, &["--set", "a=b"]);
    let question = "What is the capital of France? Answer briefly.";
    let (plain, _) = server.ask("plain", question, json!({})).await;
    let (routed, report) = server.ask("routed", question, json!({})).await;
    assert_eq!(routed, plain);
    assert_eq!((report["mode"].as_str().unwrap(), &report["exact"]), ("pipeline/speculation", &json!(true)));
    let (_, report) = server.ask("routed", "Hi", json!({})).await;
    assert_eq!(report["mode"], "pipeline/plain");
    let (two, report) = server.ask("two", question, json!({})).await;
    assert_eq!(two, format!("[4 length] {plain}"));
    assert_eq!(report["exact"], false);
    assert_eq!(server.ask("text", question, json!({})).await.0, "just text, text");
    for (model, words) in [
        ("fails", "script.lua:16"),
        ("refuses", "not today"),
        ("endless", "computed for more than"),
        ("typo", "did you mean 'max_tokens'?"),
    ] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": question}]});
        let (status, answer) = server.post("/v1/chat/completions", &body).await;
        assert_eq!(status, 503, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(words), "{model}: {answer}");
    }
    assert_eq!(server.ask("plain", question, json!({})).await.0, plain);
}
