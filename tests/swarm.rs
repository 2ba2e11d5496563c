//! The swarm: peers pull models, resume a pull, refuse corrupt bytes, and serve their own copies.
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tightwad_netlab::Proxy;

use crate::support::{
    BINARY, PROMPTS, Process, Server, one_core, set_environment, smollm2, smollm2_q2, tightwad,
};

/// The piece size of the tests. A small model has many pieces of this size.
const PIECE_SIZE: &str = "2M";

/// Copies a model to a temporary folder, where its manifest can lie beside it.
fn copy_model(from: &Path) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    std::fs::copy(from, &file).unwrap();
    (folder, file)
}

fn start_seeder(file: &Path, arguments: &[&str]) -> Process {
    let mut command = Command::new(BINARY);
    set_environment(&mut command).args([
        "swarm",
        "seed",
        "--no-announce",
        "--listen",
        "127.0.0.1:0",
        "--piece-size",
        PIECE_SIZE,
    ]);
    Process::start(command.arg(file).args(arguments))
}

/// The manifest of a file, as JSON.
fn manifest(file: &Path) -> Value {
    let output =
        tightwad(&["swarm", "manifest", "--json", "--piece-size", PIECE_SIZE, &file.display().to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The root digest of a file, which identifies it in the swarm.
fn root(file: &Path) -> String {
    manifest(file)["root"].as_str().unwrap().to_owned()
}

/// The command that pulls `model` to the file `target`.
fn pull_command(model: &str, target: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    set_environment(&mut command)
        .args(["swarm", "pull", model, "--json", "--output"])
        .arg(target)
        .args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Pulls `model` to the file `target`. Returns the result of the pull.
fn pull(model: &str, target: &Path, arguments: &[&str]) -> Value {
    let output = pull_command(model, target, arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    last_json(&output.stdout)
}

/// The last line of `stdout`, as JSON.
fn last_json(stdout: &[u8]) -> Value {
    let text = String::from_utf8_lossy(stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{text}"))
}

fn assert_same_bytes(one: &Path, other: &Path) {
    assert!(std::fs::read(one).unwrap() == std::fs::read(other).unwrap(), "the files differ");
}

fn url(process: &Process) -> String {
    format!("http://{}", process.address)
}

#[test]
fn manifest_is_reproducible_and_pull_reuses_local_files() {
    let (_folder, file) = copy_model(&smollm2());
    let (_other_folder, copy) = copy_model(&smollm2());
    let original = manifest(&file);
    assert_eq!(original, manifest(&copy));
    assert_eq!(
        (&original["architecture"], &original["quantization"]),
        (&json!("llama"), &json!("Q4_1")),
        "{original}"
    );
    let seeder = start_seeder(&file, &[]);
    let folder = tempfile::tempdir().unwrap();
    let (name, root) = (original["name"].as_str().unwrap(), original["root"].as_str().unwrap());
    // A pull accepts the name, the name with a shortened digest, and the digest.
    for (index, model) in [name, &format!("{name}@{}", &root[..12]), root].iter().enumerate() {
        let target = folder.path().join(format!("{index}.gguf"));
        let result = pull(model, &target, &["--peer", &url(&seeder)]);
        assert_same_bytes(&file, &target);
        let fetched = result["fetched_bytes"].as_u64().unwrap() + result["reused_bytes"].as_u64().unwrap();
        assert_eq!(fetched, original["size"].as_u64().unwrap(), "{result}");
        // Later pulls reuse the blocks of the first file in the folder.
        assert_eq!(result["reused_bytes"].as_u64().unwrap() > 0, index > 0, "{result}");
    }
    let repeated = pull(root, &folder.path().join("0.gguf"), &["--peer", &url(&seeder)]);
    assert_eq!(
        (&repeated["fetched_bytes"], &repeated["local_bytes"]),
        (&json!(0), &original["size"]),
        "{repeated}"
    );
    let status = tightwad(&["swarm", "status", "--json", "--peer", &url(&seeder)]);
    assert_eq!(last_json(&status.stdout)["root"], root);
    for (model, message_part) in
        [("missing", "no peer has a model 'missing'"), (&"0".repeat(64), "no peer has the manifest")]
    {
        let output =
            pull_command(model, &folder.path().join("x.gguf"), &["--peer", &url(&seeder)]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(message_part), "{text}");
    }
}

#[test]
fn pullers_share_pieces_and_relieve_the_first_seeder() {
    let _permit = one_core();
    let (_folder, file) = copy_model(&smollm2());
    // Each machine uploads at most 12 MB per second. The model has 98 MB.
    let seeder = start_seeder(&file, &["--max-upload-rate", "12M"]);
    let root = root(&file);
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let children: Vec<(PathBuf, Child)> = (0..3)
        .map(|index| {
            let target = folder.path().join(index.to_string()).join("model.gguf");
            let arguments = ["--peer", &url(&seeder), "--listen", "127.0.0.1:0", "--max-upload-rate", "12M"];
            (target.clone(), pull_command(&root, &target, &arguments).spawn().unwrap())
        })
        .collect();
    let mut first_seeder_bytes = 0;
    for (target, child) in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_same_bytes(&file, &target);
        let result = last_json(&output.stdout);
        let sources = result["from"].as_array().unwrap();
        let first_seeder = sources.iter().filter(|source| source["peer"] == json!(url(&seeder)));
        first_seeder_bytes += first_seeder.map(|source| source["bytes"].as_u64().unwrap()).sum::<u64>();
        println!("{}", result["from"]);
    }
    let size = std::fs::metadata(&file).unwrap().len();
    let copies = first_seeder_bytes as f64 / size as f64;
    println!("{copies:.2} copies from the first seeder, {:?} for three", start.elapsed());
    assert!(copies < 2.5, "the first seeder sent {copies:.2} copies to three");
}

#[test]
fn killed_pull_fetches_no_journaled_block_twice() {
    let _permit = one_core();
    let (_folder, file) = copy_model(&smollm2());
    let root = root(&file);
    let size = std::fs::metadata(&file).unwrap().len();
    let mut seeder = start_seeder(&file, &["--max-upload-rate", "40M"]);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.gguf");
    let mut kills = 0;
    loop {
        let mut child = pull_command(&root, &target, &["--peer", &url(&seeder)]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_millis(fastrand::u64(100..900));
        while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        if child.try_wait().unwrap().is_some() || kills == 6 {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let result = last_json(&output.stdout);
            println!("{kills} kills; the last run: {result}");
            let here = result["local_bytes"].as_u64().unwrap();
            assert_eq!(here + result["fetched_bytes"].as_u64().unwrap(), size, "{result}");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        if kills == 3 {
            // The seeder restarts at the same address.
            let address = seeder.address.clone();
            seeder.kill();
            let mut command = Command::new(BINARY);
            set_environment(&mut command).args([
                "swarm",
                "seed",
                "--no-announce",
                "--piece-size",
                PIECE_SIZE,
                "--listen",
                &address,
            ]);
            seeder = Process::start(command.arg(&file));
        }
    }
    assert_same_bytes(&file, &target);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pull_bans_peers_that_send_corrupt_bytes() {
    let _permit = one_core();
    let (_folder, file) = copy_model(&smollm2());
    let root = root(&file);
    let (honest, corrupted) = (start_seeder(&file, &["--max-upload-rate", "20M"]), start_seeder(&file, &[]));
    let corrupted_address = corrupted.address.parse().unwrap();
    let link = Proxy::start("127.0.0.1:0".parse().unwrap(), corrupted_address).await.unwrap();
    link.faults().corrupt_every(300);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.gguf");
    let corrupted_url = format!("http://{}", link.address());
    let (honest_url, pull_target) = (url(&honest), target.clone());
    let result = tokio::task::spawn_blocking(move || {
        pull(&root, &pull_target, &["--peer", &corrupted_url, "--peer", &honest_url])
    })
    .await
    .unwrap();
    assert_same_bytes(&file, &target);
    assert!(result["corrupt_blocks"].as_u64() > Some(0), "{result}");
    assert_eq!(result["banned_peers"].as_array().unwrap().len(), 1, "{result}");
}

#[test]
fn pull_of_an_edited_file_fetches_only_changed_blocks() {
    let (_folder, file) = copy_model(&smollm2());
    let (_newer_folder, newer) = copy_model(&smollm2());
    // The new chat template has the length of the old one.
    let mut bytes = std::fs::read(&newer).unwrap();
    let key = b"tokenizer.chat_template";
    let offset = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 30;
    bytes[offset] ^= 1;
    std::fs::write(&newer, &bytes).unwrap();
    let (old, new) = (manifest(&file), manifest(&newer));
    assert_ne!(old["chat_template"], new["chat_template"]);
    assert_ne!(old["root"], new["root"]);
    let seeder = start_seeder(&newer, &[]);
    // The puller has the old file with its manifest.
    let target = file.with_file_name("newer.gguf");
    let result = pull(new["root"].as_str().unwrap(), &target, &["--peer", &url(&seeder)]);
    assert_same_bytes(&newer, &target);
    let share = result["fetched_bytes"].as_f64().unwrap() / new["size"].as_f64().unwrap();
    println!("{:.2} % of the file was fetched", 100.0 * share);
    assert!(
        result["fetched_bytes"].as_u64().unwrap() <= 1 << 20,
        "more than one block was fetched: {result}"
    );
}

#[test]
fn pull_reports_a_missing_token_and_an_existing_file() {
    let _permit = one_core();
    let (_folder, file) = copy_model(&smollm2_q2());
    let root = root(&file);
    let mut command = Command::new(BINARY);
    set_environment(&mut command).args([
        "swarm",
        "seed",
        "--no-announce",
        "--listen",
        "127.0.0.1:0",
        "--piece-size",
        PIECE_SIZE,
    ]);
    let seeder = Process::start(command.arg(&file).args(["--token", "secret"]));
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.gguf");
    let output = pull_command(&root, &target, &["--peer", &url(&seeder)]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("give its token with --token"), "{text}");
    let result = pull(&root, &target, &["--peer", &url(&seeder), "--token", "secret"]);
    assert_same_bytes(&file, &target);
    assert_eq!(result["wasted_bytes"], 0, "{result}");
    // The target exists with other contents.
    std::fs::write(folder.path().join("other.gguf"), "mine").unwrap();
    let output = pull_command(
        &root,
        &folder.path().join("other.gguf"),
        &["--peer", &url(&seeder), "--token", "secret"],
    )
    .output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("exists already"), "{text}");
    assert_eq!(std::fs::read_to_string(folder.path().join("other.gguf")).unwrap(), "mine");
    assert!(!folder.path().join("other.gguf.part").exists(), "the refused pull left a partial file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_and_script_start_with_a_model_from_the_swarm() {
    let _permit = one_core();
    let (_folder, file) = copy_model(&smollm2());
    let root = root(&file);
    let seeder = start_seeder(&file, &[]);
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut command = Command::new(BINARY);
    set_environment(&mut command).args([
        "node",
        "--no-announce",
        "--listen",
        "127.0.0.1:0",
        "--context",
        "1024",
    ]);
    command.args(["--model", &format!("big=swarm:{root}"), "--peer", &url(&seeder)]);
    let node = Process::start(command.arg("--models-dir").arg(folder.path()));
    let joined = start.elapsed();
    // The node seeds and serves the pulled model. The script pulls the model from the node.
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(&format!(
        r#"local tw = require "tightwad"
return tw.serve {{ models = {{
  away = tw.node {{ url = "http://{0}" }},
  here = tw.model {{ swarm = "{root}", peers = {{ "http://{0}" }}, path = "{1}", context = 1024 }},
}} }}"#,
        node.address,
        data.path().join("here.gguf").display()
    ));
    let (node_text, _) = server.ask("away", PROMPTS[0], json!({"max_tokens": 16})).await;
    println!("joined after {joined:?}; answered after {:?}", start.elapsed());
    let (text, _) = server.ask("here", PROMPTS[0], json!({"max_tokens": 16})).await;
    assert_eq!(node_text, text);
    assert_same_bytes(&file, &data.path().join("here.gguf"));
    drop(server);
    // The preset pulls the model. After that, a complete model with a digest needs no peer.
    let script = crate::support::repository_root().join("scripts/swarm.lua").display().to_string();
    let (model, peers) = (format!("model={root}"), format!("peers={}", url(&seeder)));
    let check_preset = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        set_environment(&mut command).args(["run", &script, "--check", "--set", &model]).args(arguments);
        let output = command.env("XDG_DATA_HOME", data.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    check_preset(&["--set", &peers]);
    drop(seeder);
    check_preset(&["--set", "peers=http://127.0.0.1:1"]);
}
