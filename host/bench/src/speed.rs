//! Compares plain decoding with speculation.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};
use tightwad_core::{Heads, SharedBackend};
use tightwad_script::Factory;

use crate::contest::{Contest, Contestant, SLOTS, load_model, lookup_backend, stack};
use crate::prompts::{AGENT, SETS, prompt_set};
use crate::useless::Useless;

/// The memory of lookup.
const MEMORY_TOKENS: u32 = 256 << 10;

/// Compares plain decoding with speculation.
#[derive(Debug, clap::Args)]
pub(crate) struct Speed {
    /// GGUF file of the target.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: PathBuf,
    /// GGUF file of a drafter.
    #[arg(long)]
    drafter: Option<PathBuf>,
    /// Measures only this set of prompts: prose, repetitive or agent.
    #[arg(long)]
    set: Option<String>,
    /// Number of prompts per set.
    #[arg(long, default_value_t = 10)]
    prompts: usize,
    /// Tokens per answer.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// Number of concurrent prompts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(SLOTS)))]
    concurrency: u32,
    /// Sampling temperature. 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Also measures lookup and the model's own heads with these fixed draft lengths.
    #[arg(long, value_delimiter = ',')]
    fixed_draft_tokens: Vec<u32>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Speed {
    pub(crate) async fn run(self, factory: &dyn Factory) -> Result<()> {
        let contest = Contest { tokens: self.tokens, temperature: self.temperature };
        let sets = SETS.into_iter().chain([AGENT]);
        for name in sets.filter(|name| self.set.as_deref().is_none_or(|set| set == *name)) {
            let mut contestants = self.contestants(factory).await?;
            for prompts in prompt_set(name, self.prompts).chunks(self.concurrency as usize) {
                contest.round(&mut contestants, prompts, || 0).await?;
            }
            self.report(name, &contestants);
        }
        Ok(())
    }

    async fn contestants(&self, factory: &dyn Factory) -> Result<Vec<Contestant>> {
        let plain = load_model(factory, &self.model, None).await?;
        let lookup = lookup_backend(factory, 0).await?;
        let memory = lookup_backend(factory, MEMORY_TOKENS).await?;
        let mut contestants = vec![Contestant::new("plain", plain.clone())];
        let mut drafters = vec![
            ("lookup", lookup.clone()),
            ("lookup with memory", memory),
            ("useless", Arc::new(Useless) as SharedBackend),
        ];
        let heads = Heads::new(plain.clone()).map(|heads| Arc::new(heads) as SharedBackend);
        drafters.extend(heads.clone().map(|heads| ("heads", heads)));
        if let Some(path) = &self.drafter {
            drafters.push(("draft model", load_model(factory, path, None).await?));
        }
        for (name, drafter) in drafters {
            contestants.push(Contestant::new(name, stack(factory, &plain, drafter, Value::Null).await?));
        }
        for (name, drafter) in [("lookup", Some(lookup)), ("heads", heads)] {
            let Some(drafter) = drafter else { continue };
            for length in &self.fixed_draft_tokens {
                let settings = json!({"fixed_draft": length});
                let backend = stack(factory, &plain, drafter.clone(), settings).await?;
                contestants.push(Contestant::new(&format!("{name}, always {length}"), backend));
            }
        }
        Ok(contestants)
    }

    fn report(&self, set: &str, contestants: &[Contestant]) {
        let plain = contestants[0].total_time();
        if !self.json {
            let speed = f64::from(contestants[0].tokens) / plain.as_secs_f64();
            println!(
                "{set}: {} prompts, {} concurrent, plain at {speed:.1} tokens/s",
                self.prompts, self.concurrency
            );
        }
        for contestant in contestants {
            if self.json {
                let mut figures = contestant.json(set, plain);
                figures["median"] = contestant.median_ratio(&contestants[0]).into();
                println!("{figures}");
            } else {
                println!(
                    "  {:20} {:5.2}x, median {:5.2}x  {:6} tokens, {:6} drafted, {:3.0} % accepted, {} ties, {} answers differ",
                    contestant.name,
                    contestant.ratio(plain),
                    contestant.median_ratio(&contestants[0]),
                    contestant.tokens,
                    contestant.drafted,
                    100.0 * contestant.acceptance_rate(),
                    contestant.ties,
                    contestant.different_answers
                );
            }
        }
    }
}
