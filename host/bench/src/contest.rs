//! Compares backends on the same prompts. The backends take turns, so other load slows all of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::try_join_all;
use serde_json::{Map, Value, json};
use tightwad_core::{Outcome, Prompt, Request, Sampling, SamplingSpec, SharedBackend, Token, relay};
use tightwad_net::tls::Identity;
use tightwad_node::NodeSpec;
use tightwad_script::{Factory, FactoryError, LookupSpec, ModelSpec, NodeBackendSpec, SpeculationSpec};

/// Slots of a model in a comparison.
pub(crate) const SLOTS: u32 = 4;

/// One backend of a comparison, with its totals.
pub(crate) struct Contestant {
    pub name: String,
    backend: SharedBackend,
    /// Time of each round.
    times: Vec<Duration>,
    pub tokens: u32,
    pub drafted: u32,
    pub accepted: u32,
    pub wasted: u32,
    pub ties: u32,
    pub different_answers: usize,
    /// Bytes on the link, if a proxy counts them.
    pub link_bytes: u64,
}

impl Contestant {
    pub(crate) fn new(name: &str, backend: SharedBackend) -> Self {
        Self {
            name: name.to_owned(),
            backend,
            times: Vec::new(),
            tokens: 0,
            drafted: 0,
            accepted: 0,
            wasted: 0,
            ties: 0,
            different_answers: 0,
            link_bytes: 0,
        }
    }

    fn add_outcome(&mut self, outcome: &Outcome) {
        self.tokens += outcome.usage.completion_tokens;
        self.drafted += outcome.report.drafted;
        self.accepted += outcome.report.accepted;
        self.wasted += outcome.report.wasted;
        self.ties += outcome.report.ties;
    }

    /// Share of accepted tokens among the drafted ones.
    pub(crate) fn acceptance_rate(&self) -> f64 {
        f64::from(self.accepted) / f64::from(self.drafted.max(1))
    }

    /// Bytes per committed token.
    pub(crate) fn bytes_per_token(&self) -> f64 {
        self.link_bytes as f64 / f64::from(self.tokens.max(1))
    }

    /// The figures as JSON. `baseline_time` is the total time of the first contestant.
    pub(crate) fn json(&self, set: &str, baseline_time: Duration) -> Value {
        json!({
            "set": set, "name": self.name, "ratio": self.ratio(baseline_time), "seconds": self.total_time().as_secs_f64(),
            "tokens": self.tokens, "drafted": self.drafted, "accepted": self.accepted, "wasted": self.wasted,
            "ties": self.ties, "different": self.different_answers, "bytes_per_token": self.bytes_per_token(),
        })
    }

    /// Time of all rounds.
    pub(crate) fn total_time(&self) -> Duration {
        self.times.iter().sum()
    }

    /// Median over the rounds of the speed relative to `reference`. One disturbed round does not change the median much.
    pub(crate) fn median_ratio(&self, reference: &Self) -> f64 {
        let pairs = reference.times.iter().zip(&self.times);
        let mut ratios: Vec<f64> =
            pairs.map(|(reference, time)| reference.as_secs_f64() / time.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Speed relative to a contestant that takes `baseline_time`.
    pub(crate) fn ratio(&self, baseline_time: Duration) -> f64 {
        baseline_time.as_secs_f64() / self.total_time().as_secs_f64().max(1e-9)
    }
}

/// Generation settings of all answers.
pub(crate) struct Contest {
    pub tokens: u32,
    pub temperature: f32,
}

impl Contest {
    /// One round: every contestant answers all prompts concurrently. Before, the first contestant answers one prompt at a
    /// time, unmeasured: these answers are the references, and fill the prefix cache. The order rotates from round to
    /// round. `link_bytes` returns the bytes on the link so far.
    pub(crate) async fn round(
        &self,
        contestants: &mut [Contestant],
        prompts: &[Prompt],
        link_bytes: impl Fn() -> u64,
    ) -> Result<()> {
        let mut references = Vec::new();
        for prompt in prompts {
            references.push(self.answer(&contestants[0].backend, prompt).await?.0);
        }
        let first = contestants[0].times.len() % contestants.len();
        contestants.rotate_left(first);
        for contestant in contestants.iter_mut() {
            let (bytes_before, start) = (link_bytes(), Instant::now());
            let answers = prompts.iter().map(|prompt| self.answer(&contestant.backend, prompt));
            let answers = try_join_all(answers).await?;
            contestant.times.push(start.elapsed());
            contestant.link_bytes += link_bytes() - bytes_before;
            for ((text, _, outcome), reference) in answers.iter().zip(&references) {
                contestant.add_outcome(outcome);
                contestant.different_answers += usize::from(text != reference);
            }
        }
        contestants.rotate_right(first);
        Ok(())
    }

    /// The request for `prompt`.
    pub(crate) fn request(&self, prompt: &Prompt) -> Result<Request> {
        let spec =
            SamplingSpec { temperature: self.temperature, top_p: 0.95, seed: 5, ..SamplingSpec::default() };
        Ok(Request {
            id: "bench".to_owned(),
            prompt: prompt.clone(),
            sampling: Sampling::new(spec)?,
            max_tokens: Some(self.tokens),
            ..Request::default()
        })
    }

    /// Returns the text of an answer, its total time, and its outcome.
    pub(crate) async fn answer(
        &self,
        backend: &SharedBackend,
        prompt: &Prompt,
    ) -> Result<(String, Duration, Outcome)> {
        let request = self.request(prompt)?;
        let mut text = String::new();
        let start = Instant::now();
        let outcome = relay(backend.as_ref(), request, |event| {
            text.push_str(&event.text);
            async { true }
        });
        let outcome = outcome.await?;
        Ok((text, start.elapsed(), outcome))
    }
}

/// Converts a factory's error.
pub(crate) fn into_anyhow(result: Result<SharedBackend, FactoryError>) -> Result<SharedBackend> {
    match result {
        Ok(backend) => Ok(backend),
        Err(error) => bail!("{error}"),
    }
}

/// Loads the GGUF file `path`.
pub(crate) async fn load_model(
    factory: &dyn Factory,
    path: &Path,
    threads: Option<u32>,
) -> Result<SharedBackend> {
    let spec = ModelSpec {
        path: path.to_owned(),
        swarm: None,
        name: None,
        context: Some(2048),
        slots: Some(SLOTS),
        max_queue: None,
        threads,
        gpu_layers: None,
        template: None,
    };
    into_anyhow(factory.model(spec).await)
}

/// A lookup that remembers `memory_tokens` tokens of earlier requests.
pub(crate) async fn lookup_backend(factory: &dyn Factory, memory_tokens: u32) -> Result<SharedBackend> {
    let memory_tokens = Some(memory_tokens);
    let spec = LookupSpec { name: None, min_match_tokens: None, memory_tokens, shared_memory: false };
    into_anyhow(factory.lookup(spec).await)
}

/// Speculation with one drafter, and settings for the driver.
pub(crate) async fn stack(
    factory: &dyn Factory,
    target: &SharedBackend,
    drafter: SharedBackend,
    settings: Value,
) -> Result<SharedBackend> {
    stack_all(factory, target, vec![drafter], settings).await
}

/// Speculation with several drafters, and settings for the driver.
pub(crate) async fn stack_all(
    factory: &dyn Factory,
    target: &SharedBackend,
    drafters: Vec<SharedBackend>,
    settings: Value,
) -> Result<SharedBackend> {
    let settings = match settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    };
    let spec = SpeculationSpec { target: target.clone(), drafters, driver: None, settings };
    into_anyhow(factory.speculation(spec).await)
}

/// The encrypted address of a process of this program. All its processes here have this user's key.
pub(crate) fn encrypted_url(address: SocketAddr) -> Result<String> {
    Ok(format!("tightwad://{address}#{}", Identity::of_user()?.fingerprint()))
}

/// Waits for the node at `address`, and returns its only model.
pub(crate) async fn connect(
    factory: &dyn Factory,
    url: String,
    token: Option<&str>,
    name: Option<&str>,
) -> Result<SharedBackend> {
    let spec = NodeSpec {
        url,
        model: None,
        token: token.and_then(|token| Token::new(token).ok()),
        name: name.map(str::to_owned),
        wait_timeout: Duration::from_secs(30),
        supervised_device: None,
    };
    let start = Instant::now();
    loop {
        match factory.node(NodeBackendSpec { node: spec.clone(), fallback: Vec::new() }).await {
            Err(_) if start.elapsed() < Duration::from_secs(60) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            result => return into_anyhow(result),
        }
    }
}

/// The only model of the node with the URL `text`, or the model of the GGUF file `text`.
pub(crate) async fn connect_or_load(factory: &dyn Factory, text: &str, name: &str) -> Result<SharedBackend> {
    if !text.contains("://") {
        return load_model(factory, Path::new(text), None).await;
    }
    connect(factory, text.to_owned(), None, Some(name)).await
}

/// A temporary folder. Dropping the value removes the folder.
pub(crate) struct Folder(pub PathBuf);

impl Folder {
    /// Creates the folder `name` of this process.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("tightwad-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A child process. Dropping the value kills the process.
pub(crate) struct ChildProcess(pub Child);

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
