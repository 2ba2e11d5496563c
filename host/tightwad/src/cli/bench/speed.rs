//! Plain decoding against speculation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Map, json};
use tightwad_engine::{Sampling, SamplingSpec};

use super::prompts::{SETS, set};
use super::useless::Useless;
use crate::backend::{SharedBackend, relay};
use crate::cli::factory::HostFactory;
use crate::plugin::{Library, Limits, PluginEngine};
use crate::script::{Factory, LookupSpec, ModelSpec, SpeculationSpec};
use crate::types::{Format, Outcome, Prompt, Request, ToolChoice};

/// Plain decoding against speculation.
#[derive(Debug, clap::Args)]
pub(super) struct Speed {
    /// The target.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: PathBuf,
    /// A drafter's model.
    #[arg(long)]
    draft: Option<PathBuf>,
    /// Only this set: prose, or repetitive.
    #[arg(long)]
    set: Option<String>,
    /// Prompts of each set.
    #[arg(long, default_value_t = 10)]
    prompts: usize,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// 0: greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Also measures lookup with these fixed draft lengths.
    #[arg(long, value_delimiter = ',')]
    fixed: Vec<u32>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// One way to answer, with its sums.
struct Contestant {
    name: String,
    backend: SharedBackend,
    took: Duration,
    tokens: u32,
    drafted: u32,
    accepted: u32,
    ties: u32,
    different: usize,
}

impl Speed {
    pub(super) async fn run(self) -> Result<()> {
        let engine = PluginEngine::new(None, Limits::default());
        let engine = engine.map_err(|error| anyhow::anyhow!("cannot start the plugin engine: {error:#}"))?;
        let factory = HostFactory::new(Library::new(Arc::new(engine), None));
        for name in SETS.into_iter().filter(|name| self.set.as_deref().is_none_or(|set| set == *name)) {
            let mut contestants = self.contestants(&factory).await?;
            for prompt in set(name, self.prompts) {
                self.round(&mut contestants, &prompt).await?;
            }
            self.report(name, &contestants);
        }
        Ok(())
    }

    async fn contestants(&self, factory: &HostFactory) -> Result<Vec<Contestant>> {
        let plain = model(factory, &self.model).await?;
        let lookup = made(factory.lookup(LookupSpec { name: None, min_match: None }).await)?;
        let mut contestants = vec![contestant("plain", plain.clone())];
        let mut drafters = vec![("lookup", lookup.clone()), ("useless", Arc::new(Useless) as SharedBackend)];
        if let Some(path) = &self.draft {
            drafters.push(("draft model", model(factory, path).await?));
        }
        for (name, drafter) in drafters {
            contestants.push(contestant(name, stack(factory, &plain, drafter, Map::new()).await?));
        }
        for length in &self.fixed {
            let settings = Map::from_iter([("fixed_draft".to_owned(), json!(length))]);
            let backend = stack(factory, &plain, lookup.clone(), settings).await?;
            contestants.push(contestant(&format!("lookup, always {length}"), backend));
        }
        Ok(contestants)
    }

    /// One prompt, answered by all. The prompt is in the cache of all but the first, unmeasured run.
    async fn round(&self, contestants: &mut [Contestant], prompt: &Prompt) -> Result<()> {
        let (truth, _, _) = self.answer(&contestants[0].backend, prompt).await?;
        for contestant in contestants {
            let (text, took, outcome) = self.answer(&contestant.backend, prompt).await?;
            contestant.took += took;
            contestant.tokens += outcome.usage.completion_tokens;
            contestant.drafted += outcome.report.drafted;
            contestant.accepted += outcome.report.accepted;
            contestant.ties += outcome.report.ties;
            contestant.different += usize::from(text != truth);
        }
        Ok(())
    }

    async fn answer(&self, backend: &SharedBackend, prompt: &Prompt) -> Result<(String, Duration, Outcome)> {
        let spec =
            SamplingSpec { temperature: self.temperature, top_p: 0.95, seed: 5, ..SamplingSpec::default() };
        let request = Request {
            id: "bench".to_owned(),
            prompt: prompt.clone(),
            sampling: Sampling::new(spec)?,
            max_tokens: Some(self.tokens),
            stop: Vec::new(),
            format: Format::Text,
            tools: Vec::new(),
            tool_choice: ToolChoice::None,
        };
        let mut text = String::new();
        let start = Instant::now();
        let outcome = relay(backend.as_ref(), request, |event| {
            text.push_str(&event.text);
            async { true }
        });
        let outcome = outcome.await?;
        Ok((text, start.elapsed(), outcome))
    }

    fn report(&self, set: &str, contestants: &[Contestant]) {
        let plain = contestants[0].took.as_secs_f64();
        if !self.json {
            println!(
                "{set}: {} prompts of {} tokens at temperature {}",
                self.prompts, self.tokens, self.temperature
            );
        }
        for one in contestants {
            let ratio = plain / one.took.as_secs_f64();
            let share = f64::from(one.accepted) / f64::from(one.drafted.max(1));
            if self.json {
                println!(
                    "{}",
                    json!({"set": set, "drafter": one.name, "ratio": ratio, "tokens": one.tokens,
                        "drafted": one.drafted,
                        "accepted": one.accepted, "ties": one.ties, "different": one.different})
                );
            } else {
                println!(
                    "  {:20} {ratio:5.2}x  {:6} tokens, {:6} drafted, {:3.0} % accepted, {} ties, {} answers differ",
                    one.name,
                    one.tokens,
                    one.drafted,
                    100.0 * share,
                    one.ties,
                    one.different
                );
            }
        }
    }
}

fn contestant(name: &str, backend: SharedBackend) -> Contestant {
    Contestant {
        name: name.to_owned(),
        backend,
        took: Duration::ZERO,
        tokens: 0,
        drafted: 0,
        accepted: 0,
        ties: 0,
        different: 0,
    }
}

fn made(result: Result<SharedBackend, String>) -> Result<SharedBackend> {
    match result {
        Ok(backend) => Ok(backend),
        Err(error) => bail!("{error}"),
    }
}

async fn model(factory: &HostFactory, path: &std::path::Path) -> Result<SharedBackend> {
    let spec = ModelSpec {
        path: path.to_owned(),
        name: None,
        context: Some(2048),
        slots: Some(2),
        queue: None,
        threads: None,
        gpu_layers: None,
    };
    made(factory.model(spec).await)
}

async fn stack(
    factory: &HostFactory,
    target: &SharedBackend,
    drafter: SharedBackend,
    settings: Map<String, serde_json::Value>,
) -> Result<SharedBackend> {
    let spec = SpeculationSpec { target: target.clone(), drafters: vec![drafter], plugin: None, settings };
    made(factory.speculation(spec).await)
}
