//! The real binary on a free port, with a real model.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod liar;
mod llama_server;
mod node;
mod ollama;
mod process;
mod projects;
mod server;
mod turn;
mod vllm;
mod worker;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;
use tightwad_zoo::{Kind, Zoo};

pub use liar::{Liar, WORDS as LIES};
pub use llama_server::LlamaServer;
pub use node::Node;
pub use ollama::Ollama;
pub use process::Process;
pub use projects::{bundled, compiled, componentized, fixture, project, put, python, said};
pub use server::{Begun, Server};
pub use turn::{alone, share};
pub use vllm::Vllm;
pub use worker::{Worker, listed, machine, workers};

pub const BINARY: &str = env!("CARGO_BIN_EXE_tightwad");

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A downloaded model.
pub fn model(file: &str) -> PathBuf {
    let folder = std::env::var_os("TIGHTWAD_MODELS").map_or_else(|| root().join("models"), PathBuf::from);
    let path = folder.join(file);
    assert!(path.exists(), "{} is missing: run `cargo xtask models` first", path.display());
    path
}

/// A model of the zoo.
pub fn zoo(kind: Kind) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zoo");
    Zoo::new(&smollm2(), &folder).model(kind).unwrap()
}

/// A dense model that answers in milliseconds, for tests where the text's meaning does not matter.
pub fn small() -> PathBuf {
    zoo(Kind::Llama)
}

/// The small model with fewer bits: a drafter that agrees often, and not always.
pub fn small_drafter() -> PathBuf {
    small_at("q4_k_m")
}

/// The small model at fewer bits.
pub fn small_at(quantization: &str) -> PathBuf {
    quantized("small", &small(), quantization)
}

pub fn smollm2() -> PathBuf {
    model("smollm2-135m-instruct.gguf")
}

/// SmolLM2 at two bits: a drafter that really differs.
pub fn smollm2_q2() -> PathBuf {
    smollm2_at("q2_k")
}

/// SmolLM2 at fewer bits.
pub fn smollm2_at(quantization: &str) -> PathBuf {
    quantized("smollm2", &smollm2(), quantization)
}

/// `model` at fewer bits. Made once per checkout.
fn quantized(name: &str, model: &Path, quantization: &str) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _turn = MAKING.lock().unwrap();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{quantization}.gguf"));
    if !path.exists() {
        let own = path.with_extension(format!("{}.gguf", std::process::id()));
        let mut command = Command::new(BINARY);
        command.args(["quantize", "--kind", quantization]).arg(model).arg(&own);
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::rename(own, &path).unwrap();
    }
    path
}

/// Runs a program; what it printed when it fails.
pub fn run(command: &mut Command) {
    let done = command.output().unwrap();
    let text = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&text));
}

/// A folder below the target folder that `fill` fills once.
pub fn packages(name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    static FILLING: Mutex<()> = Mutex::new(());
    let _turn = FILLING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !folder.exists() {
        let unfinished = folder.with_extension("unfinished");
        let _ = std::fs::remove_dir_all(&unfinished);
        std::fs::create_dir_all(&unfinished).unwrap();
        fill(&unfinished);
        std::fs::rename(unfinished, &folder).unwrap();
    }
    folder
}

/// A script with its folder.
pub struct Script {
    folder: TempDir,
}

impl Script {
    pub fn new(text: &str) -> Self {
        let script = Self { folder: tempfile::tempdir().unwrap() };
        script.write(text);
        script
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("script.lua")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }
}

/// Runs `tightwad` with `arguments` to its end.
pub fn tightwad(arguments: &[&str]) -> Output {
    // Nothing that a script does may make it run for ever.
    let mut command = Command::new("timeout");
    command.arg("--signal=KILL").arg("120").arg(BINARY).args(arguments);
    environment(&mut command).output().unwrap()
}

pub fn environment(command: &mut Command) -> &mut Command {
    command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
    command.env("XDG_DATA_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("data"));
    command.env_remove("TIGHTWAD_TOKEN").env("NO_COLOR", "1")
}

/// A script that serves a `model` as `plain` and with speculation as `fast`; `more` are fields of `tw.model`.
pub fn plain_and_fast(model: &Path, more: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "target", context = 1024, threads = 1{more} }}
return tw.serve {{ models = {{
  plain = target,
  fast = tw.speculation {{ target = target, draft = tw.lookup {{}} }},
}} }}"#,
        model.display()
    )
}

pub const PROMPTS: [&str; 6] = [
    "Write a short poem about the sea.",
    "Repeat after me, three times: the cat sat on the mat and the dog lay on the log.",
    "List the numbers from 1 to 20, separated by commas.",
    "Translate to French: Good morning, my dear friend.",
    "Add a comment to each line:\nfn add(a: u32, b: u32) -> u32 {\n    a + b\n}\nfn sub(a: u32, b: u32) -> u32 {\n    a - b\n}",
    "Why is the sky blue? Answer in two sentences.",
];
