//! A running `tightwad run`.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{BINARY, Process, Script, environment};

/// A running server; ended by its process id when dropped.
pub struct Server {
    pub process: Process,
    pub address: String,
    pub client: reqwest::Client,
    pub script: Script,
}

impl Server {
    /// Starts `tightwad run` with a script.
    pub fn start(text: &str) -> Self {
        Self::with(text, &[])
    }

    pub fn with(text: &str, arguments: &[&str]) -> Self {
        Self::on(Command::new(BINARY), "127.0.0.1:0", text, arguments)
    }

    /// Another server beside one that runs.
    pub fn process_of(text: &str) -> Process {
        let script = Box::leak(Box::new(Script::new(text)));
        let mut command = Command::new(BINARY);
        environment(&mut command).arg("run").arg(script.path()).args(["--listen", "127.0.0.1:0"]);
        Process::start(&mut command)
    }

    /// Starts it by a `command` of its own, on an address of its own.
    pub fn on(mut command: Command, listen: &str, text: &str, arguments: &[&str]) -> Self {
        let script = Script::new(text);
        let command = environment(&mut command).arg("run").arg(script.path());
        let process = Process::start(command.args(["--listen", listen]).args(arguments));
        Self {
            address: process.address.clone(),
            process,
            client: tightwad_net::machine_client().timeout(Duration::from_secs(120)).build().unwrap(),
            script,
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
        self.begin(body).await.rest().await
    }

    /// A stream of which some text has come.
    pub async fn begin(&self, body: &Value) -> Begun {
        let mut response =
            self.client.post(self.url("/v1/chat/completions")).json(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains("\"content\":\"") {
            let Some(chunk) = response.chunk().await.unwrap() else { break };
            read.extend_from_slice(&chunk);
        }
        Begun { response, read }
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
        self.process.logged()
    }
}

/// A stream under way.
pub struct Begun {
    response: reqwest::Response,
    read: Vec<u8>,
}

impl Begun {
    /// All its events, `[DONE]` left out.
    pub async fn rest(self) -> Vec<Value> {
        let Self { response, mut read } = self;
        read.extend_from_slice(&response.bytes().await.unwrap());
        let text = String::from_utf8(read).unwrap();
        let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.last(), Some(&"[DONE]"), "{text}");
        data[..data.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}
