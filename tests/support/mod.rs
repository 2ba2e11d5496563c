//! The real binary on a free port, with a real model.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

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

pub fn smollm2() -> PathBuf {
    model("smollm2-135m-instruct.gguf")
}

/// True when tests that need the large models are left out (`cargo xtask test --quick`).
pub fn quick() -> bool {
    std::env::var_os("TIGHTWAD_QUICK").is_some()
}

/// SmolLM2 at two bits: a drafter that really differs. Made once a checkout.
pub fn smollm2_q2() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _turn = MAKING.lock().unwrap();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("smollm2-q2_k.gguf");
    if !path.exists() {
        let own = path.with_extension(format!("{}.gguf", std::process::id()));
        let made = Command::new(BINARY).arg("quantize").arg(smollm2()).arg(&own).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::rename(own, &path).unwrap();
    }
    path
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

fn environment(command: &mut Command) -> &mut Command {
    command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
    command.env_remove("TIGHTWAD_TOKEN").env("NO_COLOR", "1")
}

/// A running server; ended by its process id when dropped.
pub struct Server {
    process: Child,
    pub address: String,
    pub log: Arc<Mutex<String>>,
    pub client: reqwest::Client,
    pub script: Script,
    _turn: MutexGuard<'static, ()>,
}

/// One server at a time: more threads than cores would slow all of them down many times over.
static ONE: Mutex<()> = Mutex::new(());

impl Server {
    /// Starts `tightwad run` with a script.
    pub fn start(text: &str) -> Self {
        Self::with(text, &[])
    }

    pub fn with(text: &str, arguments: &[&str]) -> Self {
        let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let script = Script::new(text);
        let mut process = environment(&mut Command::new(BINARY))
            .arg("run")
            .arg(script.path())
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut address = None;
        while address.is_none() {
            let Some(Ok(line)) = lines.next() else { break };
            address = line.split("at http://").nth(1).map(|rest| rest.trim_end_matches("/v1").to_owned());
            log.lock().unwrap().push_str(&format!("{line}\n"));
        }
        let Some(address) = address else { panic!("no server: {}", log.lock().unwrap()) };
        let rest = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                rest.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self {
            process,
            address,
            log,
            client: reqwest::Client::builder().timeout(Duration::from_secs(120)).build().unwrap(),
            script,
            _turn: turn,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Posts JSON; returns status and JSON.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.client.post(self.url(path)).json(body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// The answer to one question, and its `tightwad` object.
    pub async fn ask(&self, model: &str, question: &str, more: Value) -> (String, Value) {
        let mut body = json!({
            "model": model, "messages": [{"role": "user", "content": question}],
            "max_tokens": 48, "temperature": 0, "seed": 11,
        });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let (status, answer) = self.post("/v1/chat/completions", &body).await;
        assert_eq!(status, 200, "{answer}");
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        (text, answer["tightwad"].clone())
    }

    /// The events of a stream, `[DONE]` left out.
    pub async fn stream(&self, body: &Value) -> Vec<Value> {
        let response = self.client.post(self.url("/v1/chat/completions")).json(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let text = response.text().await.unwrap();
        let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.last(), Some(&"[DONE]"), "{text}");
        data[..data.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let own = text.lines().filter(|line| line.starts_with(name));
        own.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until `metric` is `value`; how long that took.
    pub async fn wait_for(&self, metric: &str, value: f64) -> Duration {
        let start = std::time::Instant::now();
        while self.metric(metric).await != value {
            assert!(start.elapsed() < Duration::from_secs(30), "{metric} never became {value}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        start.elapsed()
    }

    pub fn logged(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A script that serves SmolLM2 as `plain` and with speculation as `fast`; `more` are fields of
/// `tw.model`.
pub fn smollm2_script(more: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "smollm2", context = 1024{more} }}
return tw.serve {{ models = {{
  plain = target,
  fast = tw.speculation {{ target = target, draft = tw.lookup {{}} }},
}} }}"#,
        smollm2().display()
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
