//! A running `tightwad run`.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{BINARY, Process, Script, set_environment};

/// A running server. Dropping it kills the process by its id.
pub struct Server {
    pub process: Process,
    pub address: String,
    pub client: reqwest::Client,
    pub script: Script,
}

impl Server {
    /// Runs a script on a free port of loopback.
    pub fn start(script: &str) -> Self {
        Self::start_with(script, &[])
    }

    /// Runs a script with further `arguments` of the command line.
    pub fn start_with(script: &str, arguments: &[&str]) -> Self {
        Self::start_command(Command::new(BINARY), "127.0.0.1:0", script, arguments)
    }

    /// Starts another server for a script. Returns its process only.
    pub fn start_process(script: &str) -> Process {
        let script = Box::leak(Box::new(Script::new(script)));
        let mut command = Command::new(BINARY);
        set_environment(&mut command).arg("run").arg(script.path()).args(["--listen", "127.0.0.1:0"]);
        Process::start(&mut command)
    }

    /// Runs a script with `command`, which starts the binary, on the address `listen`.
    pub fn start_command(mut command: Command, listen: &str, script: &str, arguments: &[&str]) -> Self {
        let script = Script::new(script);
        let command = set_environment(&mut command).arg("run").arg(script.path());
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

    /// Posts JSON. Returns the status and the JSON of the response.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.client.post(self.url(path)).json(body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Returns the status and the text of the response.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Asks one question, with `fields` added to the request. Returns the answer and its `tightwad` object.
    pub async fn ask(&self, model: &str, question: &str, fields: Value) -> (String, Value) {
        let mut body = json!({
            "model": model, "messages": [{"role": "user", "content": question}],
            "max_tokens": 48, "temperature": 0, "seed": 11,
        });
        for (key, value) in fields.as_object().unwrap() {
            body[key] = value.clone();
        }
        let (status, answer) = self.post("/v1/chat/completions", &body).await;
        assert_eq!(status, 200, "{answer}");
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        (text, answer["tightwad"].clone())
    }

    /// The events of a stream, without `[DONE]`.
    pub async fn stream(&self, body: &Value) -> Vec<Value> {
        self.open_stream(body).await.into_events().await
    }

    /// Opens a stream and waits for its first text.
    pub async fn open_stream(&self, body: &Value) -> OpenStream {
        let mut response =
            self.client.post(self.url("/v1/chat/completions")).json(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut received = Vec::new();
        while !String::from_utf8_lossy(&received).contains("\"content\":\"") {
            let Some(chunk) = response.chunk().await.unwrap() else { break };
            received.extend_from_slice(&chunk);
        }
        OpenStream { response, received }
    }

    /// The sum of all metrics whose name begins with `prefix`, over their labels.
    pub async fn metric(&self, prefix: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until `metric` is `value`. Returns the time that this took.
    pub async fn wait_for_metric(&self, metric: &str, value: f64) -> Duration {
        let start = std::time::Instant::now();
        while self.metric(metric).await != value {
            assert!(start.elapsed() < Duration::from_secs(30), "{metric} never became {value}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        start.elapsed()
    }

    pub fn log_text(&self) -> String {
        self.process.log_text()
    }
}

/// A stream that the server still sends.
pub struct OpenStream {
    response: reqwest::Response,
    received: Vec<u8>,
}

impl OpenStream {
    /// Reads the stream to its end. Returns all events from its beginning, without `[DONE]`.
    pub async fn into_events(self) -> Vec<Value> {
        let Self { response, mut received } = self;
        received.extend_from_slice(&response.bytes().await.unwrap());
        let text = String::from_utf8(received).unwrap();
        let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.last(), Some(&"[DONE]"), "{text}");
        data[..data.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}
