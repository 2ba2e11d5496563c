//! Models spread from machine to machine: whole, resumed, repaired, served.
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tightwad_netlab::Proxy;

use crate::support::{BINARY, PROMPTS, Process, Server, environment, share, smollm2, smollm2_q2, tightwad};

/// Small pieces, so that a small model has many.
const PIECE: &str = "2M";

/// A folder with a copy of the model, so that its manifest lies beside the copy.
fn copied(from: &Path) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    std::fs::copy(from, &file).unwrap();
    (folder, file)
}

fn seeder(file: &Path, more: &[&str]) -> Process {
    let mut command = Command::new(BINARY);
    environment(&mut command).args(["swarm", "seed", "--quiet", "--listen", "127.0.0.1:0", "--piece", PIECE]);
    Process::start(command.arg(file).args(more))
}

/// The name that the model of a file is pulled by.
fn manifest(file: &Path) -> Value {
    let done = tightwad(&["swarm", "manifest", "--json", "--piece", PIECE, &file.display().to_string()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn root(file: &Path) -> String {
    manifest(file)["root"].as_str().unwrap().to_owned()
}

fn pull(model: &str, to: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    environment(&mut command).args(["swarm", "pull", model, "--json", "--output"]).arg(to).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a pull said at its end.
fn pulled(model: &str, to: &Path, more: &[&str]) -> Value {
    let done = pull(model, to, more).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    last(&done.stdout)
}

fn last(stdout: &[u8]) -> Value {
    let text = String::from_utf8_lossy(stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{text}"))
}

fn same(one: &Path, other: &Path) {
    assert!(std::fs::read(one).unwrap() == std::fs::read(other).unwrap(), "the file is another one");
}

fn url(process: &Process) -> String {
    format!("http://{}", process.address)
}

#[test]
fn a_model_is_pulled_once_and_two_machines_make_the_same_manifest() {
    let (_one, file) = copied(&smollm2());
    let (_other, again) = copied(&smollm2());
    let made = manifest(&file);
    assert_eq!(made, manifest(&again));
    assert_eq!((&made["architecture"], &made["quantization"]), (&json!("llama"), &json!("Q4_1")), "{made}");
    let seeder = seeder(&file, &[]);
    let place = tempfile::tempdir().unwrap();
    let (name, root) = (made["name"].as_str().unwrap(), made["root"].as_str().unwrap());
    // By its name, by a cut digest, by the whole one.
    for (index, model) in [name, &format!("{name}@{}", &root[..12]), root].iter().enumerate() {
        let to = place.path().join(format!("{index}.gguf"));
        let said = pulled(model, &to, &["--peer", &url(&seeder)]);
        same(&file, &to);
        let fetched = said["fetched"].as_u64().unwrap() + said["reused"].as_u64().unwrap();
        assert_eq!(fetched, made["size"].as_u64().unwrap(), "{said}");
        // What another file of the folder has is not fetched.
        assert_eq!(said["reused"].as_u64().unwrap() > 0, index > 0, "{said}");
    }
    let again = pulled(root, &place.path().join("0.gguf"), &["--peer", &url(&seeder)]);
    assert_eq!((&again["fetched"], &again["here"]), (&json!(0), &made["size"]), "{again}");
    let listed = tightwad(&["swarm", "status", "--json", "--peer", &url(&seeder)]);
    assert_eq!(last(&listed.stdout)["root"], root);
    for (model, words) in
        [("nobody", "no peer has a model 'nobody'"), (&"0".repeat(64), "no peer has the manifest")]
    {
        let done = pull(model, &place.path().join("x.gguf"), &["--peer", &url(&seeder)]).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && text.contains(words), "{text}");
    }
}

#[test]
fn pullers_feed_one_another_and_the_first_seeder_sends_little_more_than_one_copy() {
    let _turn = share();
    let (_folder, file) = copied(&smollm2());
    // 98 MB at 12 MB/s, each.
    let seeder = seeder(&file, &["--up", "12M"]);
    let root = root(&file);
    let place = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let children: Vec<(PathBuf, Child)> = (0..3)
        .map(|index| {
            let to = place.path().join(index.to_string()).join("model.gguf");
            let more = ["--peer", &url(&seeder), "--listen", "127.0.0.1:0", "--up", "12M"];
            (to.clone(), pull(&root, &to, &more).spawn().unwrap())
        })
        .collect();
    let mut first = 0;
    for (to, child) in children {
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        same(&file, &to);
        let said = last(&done.stdout);
        let from = said["from"].as_array().unwrap();
        let own = from.iter().filter(|one| one["peer"] == json!(url(&seeder)));
        first += own.map(|one| one["bytes"].as_u64().unwrap()).sum::<u64>();
        println!("{}", said["from"]);
    }
    let size = std::fs::metadata(&file).unwrap().len();
    let copies = first as f64 / size as f64;
    println!("{copies:.2} copies from the first seeder, {:?} for three", start.elapsed());
    assert!(copies < 2.5, "the first seeder sent {copies:.2} copies to three");
}

#[test]
fn killed_again_and_again_nothing_in_the_journal_is_fetched_twice() {
    let _turn = share();
    let (_folder, file) = copied(&smollm2());
    let root = root(&file);
    let size = std::fs::metadata(&file).unwrap().len();
    let mut seeder = seeder(&file, &["--up", "40M"]);
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("model.gguf");
    let mut kills = 0;
    loop {
        let mut child = pull(&root, &to, &["--peer", &url(&seeder)]).spawn().unwrap();
        let wait = Duration::from_millis(fastrand::u64(100..900));
        let until = Instant::now() + wait;
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        if child.try_wait().unwrap().is_some() || kills == 6 {
            let done = child.wait_with_output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let said = last(&done.stdout);
            println!("{kills} kills; the last run: {said}");
            let here = said["here"].as_u64().unwrap();
            assert_eq!(here + said["fetched"].as_u64().unwrap(), size, "{said}");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        if kills == 3 {
            // The seeder, too, comes back; where it was.
            let address = seeder.address.clone();
            seeder.kill();
            let mut command = Command::new(BINARY);
            environment(&mut command)
                .args(["swarm", "seed", "--quiet", "--piece", PIECE, "--listen", &address]);
            seeder = Process::start(command.arg(&file));
        }
    }
    same(&file, &to);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_garbled_is_refused_and_another_machine_brings_it() {
    let _turn = share();
    let (_folder, file) = copied(&smollm2());
    let root = root(&file);
    let (good, bad) = (seeder(&file, &["--up", "20M"]), seeder(&file, &[]));
    let there = bad.address.parse().unwrap();
    let garbling = Proxy::start("127.0.0.1:0".parse().unwrap(), there).await.unwrap();
    garbling.faults().garble_every(300);
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("model.gguf");
    let through = format!("http://{}", garbling.address());
    let (peer, place_of) = (url(&good), to.clone());
    let said =
        tokio::task::spawn_blocking(move || pulled(&root, &place_of, &["--peer", &through, "--peer", &peer]))
            .await
            .unwrap();
    same(&file, &to);
    assert!(said["corrupt"].as_u64() > Some(0), "{said}");
    assert_eq!(said["banned"].as_array().unwrap().len(), 1, "{said}");
}

#[test]
fn an_edited_file_costs_what_was_edited() {
    let (_folder, file) = copied(&smollm2());
    let (_edited, newer) = copied(&smollm2());
    // Another chat template, as long as the old one.
    let mut bytes = std::fs::read(&newer).unwrap();
    let key = b"tokenizer.chat_template";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 30;
    bytes[at] ^= 1;
    std::fs::write(&newer, &bytes).unwrap();
    let (old, new) = (manifest(&file), manifest(&newer));
    assert_ne!(old["chat_template"], new["chat_template"]);
    assert_ne!(old["root"], new["root"]);
    let seeder = seeder(&newer, &[]);
    // The machine has the old one, whose manifest lies beside it.
    let to = file.with_file_name("newer.gguf");
    let said = pulled(new["root"].as_str().unwrap(), &to, &["--peer", &url(&seeder)]);
    same(&newer, &to);
    let share = said["fetched"].as_f64().unwrap() / new["size"].as_f64().unwrap();
    println!("{:.2} % of the file was fetched", 100.0 * share);
    assert!(said["fetched"].as_u64().unwrap() <= 1 << 20, "one block: {said}");
}

#[test]
fn a_token_and_a_full_disk_are_said_in_one_sentence() {
    let _turn = share();
    let (_folder, file) = copied(&smollm2_q2());
    let root = root(&file);
    let mut command = Command::new(BINARY);
    environment(&mut command).args(["swarm", "seed", "--quiet", "--listen", "127.0.0.1:0", "--piece", PIECE]);
    let seeder = Process::start(command.arg(&file).args(["--token", "secret"]));
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("model.gguf");
    let done = pull(&root, &to, &["--peer", &url(&seeder)]).output().unwrap();
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && text.contains("give its token with --token"), "{text}");
    let said = pulled(&root, &to, &["--peer", &url(&seeder), "--token", "secret"]);
    same(&file, &to);
    assert_eq!(said["wasted"], 0, "{said}");
    // The same name, another file.
    std::fs::write(place.path().join("other.gguf"), "mine").unwrap();
    let done = pull(&root, &place.path().join("other.gguf"), &["--peer", &url(&seeder), "--token", "secret"])
        .output();
    let done = done.unwrap();
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && text.contains("is there already"), "{text}");
    assert_eq!(std::fs::read_to_string(place.path().join("other.gguf")).unwrap(), "mine");
    assert!(!place.path().join("other.gguf.part").exists(), "nothing was made for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_with_a_model_that_it_pulls_and_a_script_does_too() {
    let _turn = share();
    let (_folder, file) = copied(&smollm2());
    let root = root(&file);
    let seeder = seeder(&file, &[]);
    let place = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut command = Command::new(BINARY);
    environment(&mut command).args(["node", "--quiet", "--listen", "127.0.0.1:0", "--context", "1024"]);
    command.args(["--model", &format!("big=swarm:{root}"), "--peer", &url(&seeder)]);
    let node = Process::start(command.arg("--models-folder").arg(place.path()));
    let joined = start.elapsed();
    // What it pulled, it seeds; what it lends, it answers with. A script pulls from it in turn.
    let own = tempfile::tempdir().unwrap();
    let server = Server::start(&format!(
        r#"local tw = require "tightwad"
return tw.serve {{ models = {{
  away = tw.node {{ url = "http://{0}" }},
  here = tw.model {{ swarm = "{root}", peers = {{ "http://{0}" }}, path = "{1}", context = 1024 }},
}} }}"#,
        node.address,
        own.path().join("here.gguf").display()
    ));
    let (away, _) = server.ask("away", PROMPTS[0], json!({"max_tokens": 16})).await;
    println!("joined after {joined:?}; answered after {:?}", start.elapsed());
    let (here, _) = server.ask("here", PROMPTS[0], json!({"max_tokens": 16})).await;
    assert_eq!(away, here);
    same(&file, &own.path().join("here.gguf"));
    drop(server);
    // The preset; what is pinned and here asks nobody any more.
    let script = crate::support::root().join("scripts/swarm.lua").display().to_string();
    let (model, peers) = (format!("model={root}"), format!("peers={}", url(&seeder)));
    let run = |more: &[&str]| {
        let mut command = Command::new(BINARY);
        environment(&mut command).args(["run", &script, "--check", "--set", &model]).args(more);
        let done = command.env("XDG_DATA_HOME", own.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    run(&["--set", &peers]);
    drop(seeder);
    run(&["--set", "peers=http://127.0.0.1:1"]);
}
