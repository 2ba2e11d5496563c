//! Tests of the scripts in `scripts/` and `examples/pipelines/`, with fake backends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fake_factory::FakeFactory;
use crate::loader::{declared_arguments, load};

const NODE: &str = "http://127.0.0.1:7710";

/// A script, the arguments that it needs, and a model that it serves.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// All scripts of the two folders.
const SCRIPTS: [Case; 13] = [
    ("scripts/combined.lua", &[("workers", "http://127.0.0.1:7711"), ("drafter", "d.gguf")], "pool"),
    ("scripts/consensus.lua", &[("drafters", "http://127.0.0.1:7710,d.gguf")], "consensus"),
    ("scripts/gate.lua", &[("fleet", "http://127.0.0.1:7710,w.gguf"), ("reviewer", "r.gguf")], "gate"),
    ("scripts/nodes.lua", &[("url", NODE), ("drafter", "d.gguf")], "node"),
    ("scripts/pooling.lua", &[("include_host", "true")], "pool"),
    ("scripts/speculation-qwen.lua", &[], "qwen2.5-coder"),
    ("scripts/speculation.lua", &[("drafter", "d.gguf")], "smollm2"),
    ("scripts/swarm.lua", &[("model", "name@0123456789abcdef"), ("peers", "http://127.0.0.1:7712")], "model"),
    ("examples/pipelines/plan-then-answer.lua", &[], "planner"),
    ("examples/pipelines/route-by-length.lua", &[], "auto"),
    ("examples/pipelines/spare-machine.lua", &[("url", NODE)], "big"),
    ("examples/pipelines/swap-models.lua", &[("workers", "http://127.0.0.1:7711")], "small"),
    ("examples/pipelines/system-prompt.lua", &[], "polite"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn table_names_every_script() {
    let files = ["scripts", "examples/pipelines"].into_iter().flat_map(|folder| {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".lua")).map(move |name| format!("{folder}/{name}"))
    });
    let files: BTreeSet<String> = files.collect();
    let table_files: BTreeSet<String> = SCRIPTS.iter().map(|(file, ..)| (*file).to_owned()).collect();
    assert_eq!(files, table_files);
}

#[tokio::test]
async fn every_script_loads_and_serves() {
    for (file, arguments, model) in SCRIPTS {
        let arguments: Vec<(String, String)> =
            arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let loaded = load(&root().join(file), Arc::new(FakeFactory), &arguments).await;
        let script = loaded.unwrap_or_else(|error| panic!("{error}"));
        assert!(script.models.iter().any(|(name, _)| name == model), "{file} does not serve {model}");
    }
}

#[tokio::test]
async fn every_script_declares_arguments_with_help() {
    for (file, ..) in SCRIPTS {
        let arguments = declared_arguments(&root().join(file)).await.unwrap();
        assert!(!arguments.is_empty(), "{file} declares no arguments");
        for argument in arguments {
            assert!(argument.help.ends_with('.'), "{file}: {} has no sentence of help", argument.name);
        }
    }
}
