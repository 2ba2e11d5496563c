//! The real binary as processes on free ports, real models, and stand-ins for other servers.
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
use tightwad_zoo::{GgufFile, Kind, Zoo};

pub use liar::{LyingServer, NONSENSE_WORDS};
pub use llama_server::LlamaServer;
pub use node::Node;
pub use ollama::Ollama;
pub use process::Process;
pub use projects::{
    build_javascript, build_python, build_rust, copy_atomically, fixture, new_project, output_of,
    python_packages,
};
pub use server::{OpenStream, Server};
pub use turn::{all_cores, one_core};
pub use vllm::Vllm;
pub use worker::{Worker, lua_workers, new_machine, start_workers};

pub const BINARY: &str = env!("CARGO_BIN_EXE_tightwad");

/// The folder of the repository.
pub fn repository_root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The file of a downloaded model.
pub fn downloaded_model(file: &str) -> PathBuf {
    let folder =
        std::env::var_os("TIGHTWAD_MODELS").map_or_else(|| repository_root().join("models"), PathBuf::from);
    let path = folder.join(file);
    assert!(path.exists(), "{} is missing: run `cargo xtask models` first", path.display());
    path
}

/// The file of a model of the zoo.
pub fn zoo_model(kind: Kind) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zoo");
    Zoo::new(&smollm2(), &folder).model(kind).unwrap()
}

/// The content of [`small_model`], for tests that change it.
pub fn small_model_content() -> GgufFile {
    Zoo::new(&smollm2(), Path::new("")).content(Kind::Llama).unwrap()
}

/// A dense model that answers in milliseconds, for tests that do not depend on the meaning of its text.
pub fn small_model() -> PathBuf {
    zoo_model(Kind::Llama)
}

/// The small model at four bits: a drafter that agrees often, but not always.
pub fn small_drafter() -> PathBuf {
    small_model_at("q4_k_m")
}

/// The small model with the type `quantization`.
pub fn small_model_at(quantization: &str) -> PathBuf {
    quantized("small", &small_model(), quantization)
}

pub fn smollm2() -> PathBuf {
    downloaded_model("smollm2-135m-instruct.gguf")
}

/// SmolLM2 at two bits: a drafter with clearly other text.
pub fn smollm2_q2() -> PathBuf {
    smollm2_at("q2_k")
}

/// SmolLM2 with the type `quantization`.
pub fn smollm2_at(quantization: &str) -> PathBuf {
    quantized("smollm2", &smollm2(), quantization)
}

/// `model` with the type `quantization`. The file is made once per checkout.
fn quantized(name: &str, model: &Path, quantization: &str) -> PathBuf {
    static QUANTIZING: Mutex<()> = Mutex::new(());
    let _guard = QUANTIZING.lock().unwrap();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{quantization}.gguf"));
    if !path.exists() {
        let unfinished = path.with_extension(format!("{}.gguf", std::process::id()));
        let mut command = Command::new(BINARY);
        command.args(["quantize", "--type", quantization]).arg(model).arg(&unfinished);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(unfinished, &path).unwrap();
    }
    path
}

/// Runs a program to its end. Panics with its output when the program fails.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&text));
}

/// A folder below the target folder. `fill` fills the folder once.
pub fn fill_once(name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    static FILLING: Mutex<()> = Mutex::new(());
    let _guard = FILLING.lock().unwrap_or_else(PoisonError::into_inner);
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

/// A script file in its own temporary folder.
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
    // A script must not be able to block a test forever.
    let mut command = Command::new("timeout");
    command.arg("--signal=KILL").arg("120").arg(BINARY).args(arguments);
    set_environment(&mut command).output().unwrap()
}

/// Sets cache, data and state folders below the target folder for `command`, and removes the token and colors.
pub fn set_environment(command: &mut Command) -> &mut Command {
    command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
    command.env("XDG_DATA_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("data"));
    command.env("XDG_STATE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("state"));
    command.env_remove("TIGHTWAD_TOKEN").env_remove("TIGHTWAD_SWARM_TOKEN").env("NO_COLOR", "1")
}

/// A script that serves `model` as `plain`, and with speculation as `fast`. `fields` are further fields of `tw.model`.
pub fn plain_and_fast_script(model: &Path, fields: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "target", context = 1024, threads = 1{fields} }}
return tw.serve {{ models = {{
  plain = target,
  fast = tw.speculation {{ target = target, drafters = tw.lookup {{}} }},
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
