//! Scripts: their abilities, and the messages about their mistakes.
use serde_json::json;

use crate::support::{Script, Server, one_core, repository_root, small_model, smollm2, smollm2_q2, tightwad};

/// Checks a script that must fail. Returns the standard error.
fn check_error(text: &str) -> String {
    let script = Script::new(text);
    let output = tightwad(&["run", &script.path().display().to_string(), "--check"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    error
}

#[test]
fn script_mistake_is_refused_at_its_line_with_advice() {
    let model = small_model().display().to_string();
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
        ("tw.speculation { target = tw.lookup {}, drafters = tw.lookup {} }".to_owned(), "cannot verify"),
        ("tw.serve { models = { a = tw.lookup {} } }".to_owned(), "only drafts"),
        ("tw.serve { models = {} }".to_owned(), "'models' in tw.serve is empty"),
        ("tw.serve { models = { a = 5 } }".to_owned(), "must be a backend or a function, not the number 5"),
        ("do".to_owned(), "near <eof>"),
        ("return 5".to_owned(), "must end with `return tw.serve"),
        ("io.open(\"x\")".to_owned(), "attempt to index a nil value"),
        ("setmetatable({}, { __gc = print })".to_owned(), "'__gc' is not available"),
    ];
    for (line, message_part) in cases {
        let error = check_error(&format!("local tw = require \"tightwad\"\n{line}"));
        assert!(error.contains(message_part), "{line}\n'{message_part}' is not in: {error}");
    }
}

#[test]
fn presets_and_examples_pass_check() {
    let (big, small) = (smollm2().display().to_string(), smollm2_q2().display().to_string());
    let (model, drafter) = (format!("model={big}"), format!("drafter={small}"));
    let gate = vec![format!("reviewer={big}"), format!("fleet={small}"), "review=both".to_owned()];
    for (script, values, served_model) in [
        ("scripts/speculation", vec![model.clone(), drafter.clone()], "smollm2"),
        ("scripts/speculation-qwen", vec![model.clone(), drafter], "qwen2.5-coder"),
        ("scripts/consensus", vec![model.clone(), format!("drafters={small},{big}")], "consensus"),
        ("scripts/gate", gate, "gate"),
        ("examples/pipelines/plan-then-answer", vec![model.clone()], "planner"),
        (
            "examples/pipelines/route-by-length",
            vec![format!("small={small}"), format!("large={big}")],
            "auto",
        ),
        ("examples/pipelines/system-prompt", vec![model.clone()], "polite"),
    ] {
        let file = repository_root().join(format!("{script}.lua")).display().to_string();
        let mut arguments = vec!["run", &file, "--check"];
        values.iter().for_each(|value| arguments.extend(["--set", value]));
        let output = tightwad(&arguments);
        let (stdout, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && stdout.contains(served_model), "{script}: {stdout}{error}");
    }
}

#[test]
fn args_flag_lists_arguments_without_models() {
    let gate = repository_root().join("scripts/gate.lua").display().to_string();
    let output = tightwad(&["run", &gate, "--args"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(
        rows,
        [
            ["NAME", "TYPE", "DEFAULT"],
            ["fleet", "list", "required"],
            ["reviewer", "string", "required"],
            ["policy", "string", "-"],
            ["review", "string", "score"],
            ["token", "string", "-"],
        ]
    );
}

#[test]
fn wrong_arguments_are_refused_at_the_line_of_tw_arg() {
    let gate = repository_root().join("scripts/gate.lua").display().to_string();
    for (values, message_part) in [
        (vec!["fleet=a.gguf"], "the argument 'reviewer' is missing. Give it with --set reviewer=VALUE."),
        (vec!["fleet=a.gguf", "reviewers=b.gguf"], "unknown argument 'reviewers'; did you mean 'reviewer'?"),
        (
            vec!["fleet=a.gguf", "reviewer=b.gguf", "review=all"],
            "the argument 'review' must be one of score, judge, both, not 'all'",
        ),
    ] {
        let mut arguments = vec!["run", &gate, "--check"];
        values.iter().for_each(|value| arguments.extend(["--set", value]));
        let output = tightwad(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains("gate.lua:12: ") && error.contains(message_part),
            "'{message_part}' is not in: {error}"
        );
    }
}

#[test]
fn files_that_are_not_models_are_refused() {
    let script = Script::new("");
    let bytes = std::fs::read(small_model()).unwrap();
    std::fs::write(script.folder().join("cut.gguf"), &bytes[..5_000_000]).unwrap();
    std::fs::write(script.folder().join("text.gguf"), "hello").unwrap();
    for (file, message_part) in
        [("cut.gguf", "is incomplete: it has 5000000 of "), ("text.gguf", "does not begin with GGUF")]
    {
        script.write(&format!("require(\"tightwad\").model {{ path = \"{file}\" }}"));
        let output = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(message_part) && error.contains("script.lua:1"), "{error}");
    }
}

#[test]
fn endless_loops_and_huge_allocations_are_stopped() {
    for text in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "coroutine.wrap(function() while true do end end)()",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "local t = setmetatable({}, { __index = function(t, k) while true do end end }) local x = t.x",
    ] {
        let error = check_error(text);
        assert!(error.contains("computed for more than 1 s"), "{text}: {error}");
    }
    for text in [
        "local s = string.rep('x', 1 << 30)",
        "local t = {} while true do t[#t + 1] = ('x'):rep(1 << 27) end",
    ] {
        let error = check_error(text);
        assert!(error.contains("memory"), "{text}: {error}");
    }
}

#[tokio::test]
async fn pipeline_functions_route_emit_and_complete() {
    let _permit = one_core();
    let text = format!(
        r#"local tw = require "tightwad"; local args = tw.arg {{ message_part = {{ type = "list", required = true }} }}
local target = tw.model {{ path = "{}", name = "smollm2", context = 1024, threads = 1 }}
local fast = tw.speculation {{ target = target, drafters = tw.lookup {{}} }}
return tw.serve {{ models = {{
  plain = target,
  routed = function(req)
    if #req.prompt < 20 then return target:generate(req, {{ max_tokens = 3 }}) end
    return fast:generate(req)
  end,
  two = function(req)
    local first = target:complete(req, {{ max_tokens = 4 }})
    req:emit("[" .. first.completion_tokens .. " " .. first.finish_reason .. "] ")
    return fast:generate(req)
  end,
  text = function(req) return table.concat(args.message_part, " ") .. ", " .. req.model end,
  fails = function(req) local x = nil; return x.y end,
  refuses = function(req) return nil, "not today" end,
  endless = function(req) while true do pcall(function() while true do end end) end end,
  typo = function(req) return target:generate(req, {{ max_token = 3 }}) end,
}} }}"#,
        small_model().display()
    );
    let server = Server::start_with(&text, &["--set", "message_part=just,text"]);
    let question = "What is the capital of France? Answer briefly.";
    let (expected, _) = server.ask("plain", question, json!({})).await;
    let (routed, report) = server.ask("routed", question, json!({})).await;
    assert_eq!(routed, expected);
    assert_eq!((report["mode"].as_str().unwrap(), &report["exact"]), ("pipeline/speculation", &json!(true)));
    let (_, report) = server.ask("routed", "Hi", json!({})).await;
    assert_eq!(report["mode"], "pipeline/plain");
    let (two, report) = server.ask("two", question, json!({})).await;
    assert_eq!(two, format!("[4 length] {expected}"));
    assert_eq!(report["exact"], false);
    assert_eq!(server.ask("text", question, json!({})).await.0, "just text, text");
    for (model, message_part) in [
        ("fails", "script.lua:16"),
        ("refuses", "not today"),
        ("endless", "computed for more than"),
        ("typo", "did you mean 'max_tokens'?"),
    ] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": question}]});
        let (status, answer) = server.post("/v1/chat/completions", &body).await;
        assert_eq!(status, 503, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(message_part), "{model}: {answer}");
    }
    assert_eq!(server.ask("plain", question, json!({})).await.0, expected);
}
