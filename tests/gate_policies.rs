//! Gate policies as plugins: written in three languages, dropped into a folder, each ruling at once.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    PROMPTS, Server, bundled, compiled, componentized, fixture, project, put, said, share, small,
    small_drafter, tightwad,
};

const NAME: &str = "second-look";

/// The policy on what the reviewer says (`judged`), and on its probabilities (`scored`).
fn script() -> String {
    format!(
        r#"local tw = require "tightwad"
local reviewer = tw.model {{ path = "{}", name = "reviewer", context = 1024, threads = 1 }}
local small = tw.model {{ path = "{}", name = "small", context = 1024, threads = 1 }}
return tw.serve {{ models = {{
  judged = tw.gate {{ fleet = small, reviewer = reviewer, review = "judge", plugin = "{NAME}" }},
  scored = tw.gate {{ fleet = small, reviewer = reviewer, review = "score", plugin = "{NAME}" }},
}} }}"#,
        small().display(),
        small_drafter().display()
    )
}

/// A project in a language, built.
fn built(language: &str) -> (TempDir, PathBuf) {
    let (place, folder) = project("gate", NAME, language);
    let component = match language {
        "rust" => compiled(&folder),
        "python" => componentized(&folder, "verdicts", &["--stub-wasi"], "built.wasm"),
        _ => bundled(&folder),
    };
    (place, component)
}

/// What a response says of a component that ruled: its label and its digest. It exports `gate-policy`.
fn entry(component: &Path) -> Value {
    let done = tightwad(&["plugin", "inspect", &component.display().to_string(), "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let inspected: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(inspected["exports"], "gate-policy", "{inspected}");
    assert!(!inspected["imports"].to_string().contains("wasi:"), "{inspected}");
    json!({"name": inspected["label"], "sha256": inspected["sha256"]})
}

/// Asks the gate `model` until the policy of this `entry` rules; then what it made of each prompt.
async fn verdicts(server: &Server, model: &str, entry: &Value) -> Vec<Value> {
    let start = Instant::now();
    let mut verdicts = Vec::new();
    while verdicts.len() < 3 {
        let (_, report) = server.ask(model, PROMPTS[verdicts.len()], json!({"max_tokens": 16})).await;
        assert!(report["mode"] == "gate" && report["fallback"].is_null(), "{report}");
        // The gate itself comes first.
        if report["plugins"][1] == *entry {
            verdicts.push(json!([report["gate"]["verdict"], report["gate"]["kept"]]));
        } else {
            // A component of some megabytes is compiled first.
            assert!(verdicts.is_empty() && start.elapsed() < Duration::from_secs(120), "{entry}: {report}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    verdicts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs npm"]
async fn a_policy_of_each_language_rules_as_soon_as_its_file_is_there() {
    let _turn = share();
    ruled_alike(&["rust", "javascript"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes; needs pip"]
async fn a_policy_in_python_rules_as_one_in_rust_does() {
    let _turn = share();
    ruled_alike(&["rust", "python"]).await;
}

/// The same policy in all `languages` replaces another one while the host runs, and rules alike.
async fn ruled_alike(languages: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join(format!("{NAME}.wasm"));
    let approve = fixture("gate-approve");
    put(&approve, &place);
    let components: Vec<_> = languages.iter().map(|language| built(language)).collect();
    let server = Server::with(&script(), &["--plugins", &folder.path().display().to_string()]);
    let approved = verdicts(&server, "judged", &entry(&approve)).await;
    assert!(approved.iter().all(|one| one[0] == "approved"), "{approved:?}");
    let mut ruled: Vec<Vec<Value>> = Vec::new();
    for (_project, component) in &components {
        let entry = entry(component);
        assert_eq!(entry["name"], "second-look@0.1.0");
        put(component, &place);
        let mut own = verdicts(&server, "judged", &entry).await;
        own.extend(verdicts(&server, "scored", &entry).await);
        ruled.push(own);
    }
    // It is the same policy in all of them.
    assert!(ruled.iter().all(|own| *own == ruled[0]), "{ruled:?}");
    assert!(!server.logged().contains("gate policy failed"), "{}", server.logged());
}

#[test]
fn what_is_said_of_a_project_fits_a_gate() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("my-verdict").display().to_string();
    let new =
        |language| said(&["plugin", "new", "gate", "my-verdict", "--lang", language, "--path", &folder]);
    let (ok, text) = new("c");
    assert!(!ok && text.trim().lines().count() == 1, "{text}");
    assert!(text.contains("a gate policy in C is not to be had; use --lang rust"), "{text}");
    assert!(!Path::new(&folder).exists(), "nothing was made");
    let (ok, text) = new("python");
    assert!(ok && text.contains("-w verdicts componentize"), "{text}");
    assert!(text.contains(&format!("tightwad plugin inspect {folder}/my-verdict.wasm")), "{text}");
    assert!(text.contains("tw.gate { fleet = ..., reviewer = ..., plugin = \"my-verdict\" }"), "{text}");
    assert!(!text.contains("plugin check") && !text.contains("consensus"), "{text}");
    let app = std::fs::read_to_string(format!("{folder}/app.py")).unwrap();
    assert!(app.contains("name=\"my-verdict\"") && !app.contains("second-look"), "{app}");
}
