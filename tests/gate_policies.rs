//! Gate policies as plugins in three languages. The host uses a policy as soon as its file is in the plugins folder.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    PROMPTS, Server, build_javascript, build_python, build_rust, copy_atomically, fixture, new_project,
    one_core, output_of, small_drafter, small_model, tightwad,
};

const NAME: &str = "second-look";

/// Serves two gates with the policy: one for judgements of the reviewer, and one for its probabilities.
fn script() -> String {
    format!(
        r#"local tw = require "tightwad"
local reviewer = tw.model {{ path = "{}", name = "reviewer", context = 1024, threads = 1 }}
local small = tw.model {{ path = "{}", name = "small", context = 1024, threads = 1 }}
return tw.serve {{ models = {{
  judged = tw.gate {{ fleet = small, reviewer = reviewer, review = "judge", policy = "{NAME}" }},
  scored = tw.gate {{ fleet = small, reviewer = reviewer, review = "score", policy = "{NAME}" }},
}} }}"#,
        small_model().display(),
        small_drafter().display()
    )
}

/// Writes and builds a project in `language`. Returns its temporary folder and the component.
fn build_project(language: &str) -> (TempDir, PathBuf) {
    let (parent, folder) = new_project("gate", NAME, language);
    let component = match language {
        "rust" => build_rust(&folder),
        "python" => build_python(&folder, "gate-policy-plugin", &["--stub-wasi"], "built.wasm"),
        _ => build_javascript(&folder),
    };
    (parent, component)
}

/// The entry of a `component` in the `plugins` of a response: its label and its digest. The component must export
/// `gate-policy` and import no WASI.
fn plugin_entry(component: &Path) -> Value {
    let output = tightwad(&["plugin", "inspect", &component.display().to_string(), "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let inspected: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(inspected["exports"], "gate-policy", "{inspected}");
    assert!(!inspected["imports"].to_string().contains("wasi:"), "{inspected}");
    json!({"name": inspected["label"], "sha256": inspected["sha256"]})
}

/// Asks the gate `model` until the policy of `entry` rules. Returns its verdicts about three prompts.
async fn verdicts(server: &Server, model: &str, entry: &Value) -> Vec<Value> {
    let start = Instant::now();
    let mut verdicts = Vec::new();
    while verdicts.len() < 3 {
        let (_, report) = server.ask(model, PROMPTS[verdicts.len()], json!({"max_tokens": 16})).await;
        assert!(report["mode"] == "gate" && report["fallback"].is_null(), "{report}");
        // The first entry is the gate itself.
        if report["plugins"][1] == *entry {
            verdicts.push(json!([report["gate"]["verdict"], report["gate"]["kept_share"]]));
        } else {
            // The host compiles the component first, which can have several megabytes.
            assert!(verdicts.is_empty() && start.elapsed() < Duration::from_secs(120), "{entry}: {report}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    verdicts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs npm"]
async fn rust_and_javascript_policies_rule_alike_once_installed() {
    let _permit = one_core();
    check_policies_rule_alike(&["rust", "javascript"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes; needs pip"]
async fn rust_and_python_policies_rule_alike_once_installed() {
    let _permit = one_core();
    check_policies_rule_alike(&["rust", "python"]).await;
}

/// Checks that the same policy in all `languages` gives equal verdicts. Each component replaces another one while the
/// host runs.
async fn check_policies_rule_alike(languages: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let installed = folder.path().join(format!("{NAME}.wasm"));
    let approve = fixture("gate-approve");
    copy_atomically(&approve, &installed);
    let components: Vec<_> = languages.iter().map(|language| build_project(language)).collect();
    let server = Server::start_with(&script(), &["--plugins-dir", &folder.path().display().to_string()]);
    let approvals = verdicts(&server, "judged", &plugin_entry(&approve)).await;
    assert!(approvals.iter().all(|verdict| verdict[0] == "approved"), "{approvals:?}");
    let mut verdicts_per_language: Vec<Vec<Value>> = Vec::new();
    for (_parent, component) in &components {
        let entry = plugin_entry(component);
        assert_eq!(entry["name"], "second-look@0.1.0");
        copy_atomically(component, &installed);
        let mut rulings = verdicts(&server, "judged", &entry).await;
        rulings.extend(verdicts(&server, "scored", &entry).await);
        verdicts_per_language.push(rulings);
    }
    assert!(
        verdicts_per_language.iter().all(|verdicts| *verdicts == verdicts_per_language[0]),
        "{verdicts_per_language:?}"
    );
    assert!(!server.log_text().contains("gate policy failed"), "{}", server.log_text());
}

#[test]
fn plugin_new_prints_instructions_for_a_gate_policy() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("my-verdict").display().to_string();
    let new = |language| {
        output_of(&["plugin", "new", "gate", "my-verdict", "--lang", language, "--output", &folder])
    };
    let (ok, text) = new("c");
    assert!(!ok && text.trim().lines().count() == 1, "{text}");
    assert!(text.contains("there is no template of a gate policy in C. Use --lang rust"), "{text}");
    assert!(!Path::new(&folder).exists(), "a refused project leaves a folder");
    let (ok, text) = new("python");
    assert!(ok && text.contains("-w gate-policy-plugin componentize"), "{text}");
    assert!(text.contains(&format!("tightwad plugin inspect {folder}/my-verdict.wasm")), "{text}");
    assert!(text.contains("tw.gate { fleet = ..., reviewer = ..., policy = \"my-verdict\" }"), "{text}");
    assert!(!text.contains("plugin check") && !text.contains("consensus"), "{text}");
    let app = std::fs::read_to_string(format!("{folder}/app.py")).unwrap();
    assert!(app.contains("name=\"my-verdict\"") && !app.contains("second-look"), "{app}");
}
