//! Ways to answer the same prompts, side by side: prompt by prompt, so that whatever slows the machine
//! down slows all of them down.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use serde_json::{Map, Value, json};
use tightwad_core::{Outcome, Prompt, Request, Sampling, SamplingSpec, SharedBackend, Token, relay};
use tightwad_node::NodeSpec;
use tightwad_script::{Factory, FactoryError, LentSpec, LookupSpec, ModelSpec, SpeculationSpec};

/// Requests that a model of a contest answers at once.
pub(crate) const SLOTS: u32 = 4;

/// One way to answer, with its sums.
pub(crate) struct Contestant {
    pub name: String,
    backend: SharedBackend,
    /// What each round took.
    times: Vec<Duration>,
    pub tokens: u32,
    pub drafted: u32,
    pub accepted: u32,
    pub wasted: u32,
    pub ties: u32,
    pub different: usize,
    /// Bytes on the wire, where someone counts them.
    pub bytes: u64,
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
            different: 0,
            bytes: 0,
        }
    }

    fn count(&mut self, outcome: &Outcome) {
        self.tokens += outcome.usage.completion_tokens;
        self.drafted += outcome.report.drafted;
        self.accepted += outcome.report.accepted;
        self.wasted += outcome.report.wasted;
        self.ties += outcome.report.ties;
    }

    /// The share of drafted tokens that was accepted.
    pub(crate) fn share(&self) -> f64 {
        f64::from(self.accepted) / f64::from(self.drafted.max(1))
    }

    /// Bytes a committed token.
    pub(crate) fn bytes_a_token(&self) -> f64 {
        self.bytes as f64 / f64::from(self.tokens.max(1))
    }

    /// The figures as JSON; `plain` is the time of the first contestant.
    pub(crate) fn json(&self, set: &str, plain: Duration) -> Value {
        json!({
            "set": set, "name": self.name, "ratio": self.ratio(plain), "seconds": self.took().as_secs_f64(),
            "tokens": self.tokens, "drafted": self.drafted, "accepted": self.accepted, "wasted": self.wasted,
            "ties": self.ties, "different": self.different, "bytes_a_token": self.bytes_a_token(),
        })
    }

    /// What all rounds took.
    pub(crate) fn took(&self) -> Duration {
        self.times.iter().sum()
    }

    /// How many times as fast as `other`, in the median of the rounds: where the machine did something else
    /// meanwhile, it counts as one round, however long that took.
    pub(crate) fn median(&self, other: &Self) -> f64 {
        let both = other.times.iter().zip(&self.times);
        let mut ratios: Vec<f64> = both.map(|(other, own)| other.as_secs_f64() / own.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// How many times as fast as `plain`.
    pub(crate) fn ratio(&self, plain: Duration) -> f64 {
        plain.as_secs_f64() / self.took().as_secs_f64().max(1e-9)
    }
}

/// How answers are generated.
pub(crate) struct Contest {
    pub tokens: u32,
    pub temperature: f32,
}

impl Contest {
    /// Prompts, answered by all contestants, each of which answers all of them at once; the truth is what the
    /// first one answers to each alone. A prompt is in the cache of all but that first, unmeasured run. Who
    /// begins changes from round to round. `wire` counts bytes.
    pub(crate) async fn round(
        &self,
        contestants: &mut [Contestant],
        prompts: &[Prompt],
        wire: impl Fn() -> u64,
    ) -> Result<()> {
        let mut truths = Vec::new();
        for prompt in prompts {
            truths.push(self.answer(&contestants[0].backend, prompt).await?.0);
        }
        let begins = contestants[0].times.len() % contestants.len();
        contestants.rotate_left(begins);
        for contestant in contestants.iter_mut() {
            let (before, start) = (wire(), Instant::now());
            let answers = prompts.iter().map(|prompt| self.answer(&contestant.backend, prompt));
            let answers = try_join_all(answers).await?;
            contestant.times.push(start.elapsed());
            contestant.bytes += wire() - before;
            for ((text, _, outcome), truth) in answers.iter().zip(&truths) {
                contestant.count(outcome);
                contestant.different += usize::from(text != truth);
            }
        }
        contestants.rotate_right(begins);
        Ok(())
    }

    /// What is asked.
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

    /// The text of an answer, and how it came to be.
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

pub(crate) fn made(result: Result<SharedBackend, FactoryError>) -> Result<SharedBackend> {
    match result {
        Ok(backend) => Ok(backend),
        Err(error) => bail!("{error}"),
    }
}

pub(crate) async fn model(factory: &dyn Factory, path: &Path, threads: Option<u32>) -> Result<SharedBackend> {
    let spec = ModelSpec {
        path: path.to_owned(),
        swarm: None,
        name: None,
        context: Some(2048),
        slots: Some(SLOTS),
        queue: None,
        threads,
        gpu_layers: None,
    };
    made(factory.model(spec).await)
}

pub(crate) async fn lookup(factory: &dyn Factory) -> Result<SharedBackend> {
    made(factory.lookup(LookupSpec { name: None, min_match: None }).await)
}

/// Speculation with settings for the plugin.
pub(crate) async fn stack(
    factory: &dyn Factory,
    target: &SharedBackend,
    drafter: SharedBackend,
    settings: Value,
) -> Result<SharedBackend> {
    stack_all(factory, target, vec![drafter], settings).await
}

/// The same with several drafters.
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
    let spec = SpeculationSpec { target: target.clone(), drafters, plugin: None, settings };
    made(factory.speculation(spec).await)
}

/// The only model of the node at `address`, once it answers.
pub(crate) async fn connected(
    factory: &dyn Factory,
    address: SocketAddr,
    token: Option<&str>,
    name: Option<&str>,
) -> Result<SharedBackend> {
    let spec = NodeSpec {
        url: format!("http://{address}"),
        model: None,
        token: token.and_then(|token| Token::new(token).ok()),
        name: name.map(str::to_owned),
        patience: Duration::from_secs(30),
        watched: None,
    };
    let start = Instant::now();
    loop {
        match factory.node(LentSpec { spec: spec.clone(), fallback: Vec::new() }).await {
            Err(_) if start.elapsed() < Duration::from_secs(60) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            done => return made(done),
        }
    }
}

/// What `text` says: the only model of a node, by its URL, or the model of a GGUF file.
pub(crate) async fn connect_or_load(factory: &dyn Factory, text: &str, name: &str) -> Result<SharedBackend> {
    let Some(address) = text.strip_prefix("http://") else {
        return model(factory, Path::new(text), None).await;
    };
    let address = address.trim_end_matches('/').parse().with_context(|| format!("{text} is no address"))?;
    connected(factory, address, None, Some(name)).await
}

/// A folder that is removed in the end.
pub(crate) struct Folder(pub PathBuf);

impl Folder {
    /// Makes one of this process; `name` tells several apart.
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

/// A process that ends with the benchmark.
pub(crate) struct Lender(pub Child);

impl Drop for Lender {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
