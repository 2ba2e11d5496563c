//! `tightwad chat`: talks to an OpenAI-compatible endpoint and reports speed, acceptance and exactness.

use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::Method;
use serde_json::{Value, json};
use tightwad_core::{Token, root_cause};
use tightwad_net::{
    Lines, Reply, ReplyError, ReplyLimits, ServerUrl, authorized, machine_client, server_client,
};

use crate::cli::token::TokenParser;

/// The limits of a reply. The user ends a reply that takes too long.
const LIMITS: ReplyLimits = ReplyLimits::bytes(1 << 30);
/// The longest line of a reply in bytes.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Talks to an endpoint.
#[derive(Debug, clap::Args)]
pub(crate) struct Chat {
    /// Address of the endpoint.
    #[arg(long, default_value = "http://127.0.0.1:8088", value_parser = crate::cli::args::endpoint_url)]
    url: ServerUrl,
    /// Model name. Default: the first one that the endpoint lists.
    #[arg(long)]
    model: Option<String>,
    /// Bearer token or API key of the endpoint.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Asks one question and exits.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Greatest length of an answer, in tokens.
    #[arg(long, default_value_t = 256)]
    max_tokens: u32,
    /// Sampling temperature. 0 chooses the most probable token.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
}

impl Chat {
    /// Runs until the question is answered or standard input ends.
    pub(crate) async fn run(self) -> Result<()> {
        let client = client(self.url.base()).connect_timeout(Duration::from_secs(5)).build()?;
        let model = match &self.model {
            Some(model) => model.clone(),
            None => self.first_model(&client).await?,
        };
        let mut messages = Vec::new();
        if let Some(question) = &self.prompt {
            messages.push(json!({"role": "user", "content": question}));
            return self.ask(&client, &model, &messages).await.map(drop);
        }
        eprintln!("talking to {model} at {}; end with Ctrl-D", self.url);
        loop {
            if std::io::stdin().is_terminal() {
                eprint!("> ");
            }
            let mut line = String::new();
            if std::io::stdin().lock().read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                continue;
            }
            messages.push(json!({"role": "user", "content": line.trim_end()}));
            let answer = self.ask(&client, &model, &messages).await?;
            messages.push(json!({"role": "assistant", "content": answer}));
        }
    }

    async fn first_model(&self, client: &reqwest::Client) -> Result<String> {
        let request = self.authorized(self.url.request(client, Method::GET, "/v1/models"));
        let reply = Reply::send(request, LIMITS).await.map_err(|error| self.unreachable(&error))?;
        let listed = serde_json::from_slice::<Value>(&reply.bytes().await?);
        let listed = listed.context("the endpoint's model list is not JSON")?;
        let first = listed["data"][0]["id"].as_str().map(str::to_owned);
        first.with_context(|| format!("{} lists no model: {listed}", self.url))
    }

    /// Writes one answer to standard output while it arrives, and its figures to standard error.
    async fn ask(&self, client: &reqwest::Client, model: &str, messages: &[Value]) -> Result<String> {
        let body = json!({
            "model": model, "messages": messages, "stream": true, "max_tokens": self.max_tokens,
            "temperature": self.temperature, "stream_options": {"include_usage": true},
        });
        let request = self.authorized(self.url.request(client, Method::POST, "/v1/chat/completions"));
        let start = Instant::now();
        let sent = Reply::send(request.json(&body), LIMITS).await;
        let reply = sent.map_err(|error| self.unreachable(&error))?;
        let status = reply.status();
        if !status.is_success() {
            let body: Value = serde_json::from_slice(&reply.bytes().await?).unwrap_or_default();
            bail!("{status}: {}", body["error"]["message"].as_str().unwrap_or("no message"));
        }
        let mut answer = Answer::new(start);
        let mut lines = Lines::new(reply, MAX_LINE_BYTES);
        while let Some(line) = lines.next().await.context("the connection to the endpoint broke")? {
            answer.add_line(&line)?;
        }
        println!();
        eprintln!("{}", answer.figures());
        Ok(answer.text)
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        authorized(request, self.token.as_ref())
    }

    fn unreachable(&self, error: &ReplyError) -> anyhow::Error {
        anyhow!(
            "no endpoint answers at {}: {}. Start `tightwad run SCRIPT`, or name another address with --url.",
            self.url,
            root_cause(error)
        )
    }
}

/// The client for `url`. It uses a proxy only with HTTPS, because plain HTTP shows the token to the proxy.
fn client(url: &str) -> reqwest::ClientBuilder {
    if url.starts_with("https://") { server_client(url) } else { machine_client() }
}

/// An answer that is still streaming.
struct Answer {
    text: String,
    start: Instant,
    first_text_time: Option<Duration>,
    usage: Value,
    report: Value,
}

impl Answer {
    fn new(start: Instant) -> Self {
        Self { text: String::new(), start, first_text_time: None, usage: Value::Null, report: Value::Null }
    }

    /// Adds one line of the event stream.
    fn add_line(&mut self, line: &[u8]) -> Result<()> {
        let Some(data) = line.strip_prefix(b"data: ") else { return Ok(()) };
        if data.starts_with(b"[DONE]") {
            return Ok(());
        }
        let mut chunk: Value = serde_json::from_slice(data).context("an event is not JSON")?;
        if let Some(message) = chunk["error"]["message"].as_str() {
            bail!("{message}");
        }
        if let Some(text) = chunk["choices"][0]["delta"]["content"].as_str() {
            self.first_text_time.get_or_insert_with(|| self.start.elapsed());
            self.text.push_str(text);
            print!("{text}");
            std::io::stdout().flush()?;
        }
        for (key, field) in [("usage", &mut self.usage), ("tightwad", &mut self.report)] {
            if chunk[key].is_object() {
                *field = chunk[key].take();
            }
        }
        Ok(())
    }

    /// Speed, acceptance and exactness, as far as the endpoint reports them.
    fn figures(&self) -> String {
        let tokens = self.usage["completion_tokens"].as_u64().unwrap_or(0);
        let generation_seconds =
            self.start.elapsed().saturating_sub(self.first_text_time.unwrap_or_default()).as_secs_f64();
        let speed = (tokens.saturating_sub(1)) as f64 / generation_seconds.max(1e-9);
        let mut figures = format!("[{tokens} tokens, {speed:.1} tokens/s");
        if let Some(mode) = self.report["mode"].as_str() {
            let count = |key: &str| self.report[key].as_u64().unwrap_or(0);
            let (drafted, accepted) = (count("drafted"), count("accepted"));
            let share = 100.0 * accepted as f64 / drafted.max(1) as f64;
            let exact = if self.report["exact"] == true { "exact" } else { "approximate" };
            figures +=
                &format!(", {mode}: {accepted} of {drafted} drafted tokens accepted ({share:.0} %), {exact}");
        }
        figures + "]"
    }
}
