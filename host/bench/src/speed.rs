//! Plain decoding against speculation.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};
use tightwad_core::SharedBackend;
use tightwad_script::Factory;

use crate::contest::{Contest, Contestant, SLOTS, lookup, model, stack};
use crate::prompts::{SETS, set};
use crate::useless::Useless;

/// Plain decoding against speculation.
#[derive(Debug, clap::Args)]
pub(crate) struct Speed {
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
    /// Prompts that are answered at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(SLOTS)))]
    at_once: u32,
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

impl Speed {
    pub(crate) async fn run(self, factory: &dyn Factory) -> Result<()> {
        let contest = Contest { tokens: self.tokens, temperature: self.temperature };
        for name in SETS.into_iter().filter(|name| self.set.as_deref().is_none_or(|set| set == *name)) {
            let mut contestants = self.contestants(factory).await?;
            for prompts in set(name, self.prompts).chunks(self.at_once as usize) {
                contest.round(&mut contestants, prompts, || 0).await?;
            }
            self.report(name, &contestants);
        }
        Ok(())
    }

    async fn contestants(&self, factory: &dyn Factory) -> Result<Vec<Contestant>> {
        let plain = model(factory, &self.model, None).await?;
        let lookup = lookup(factory).await?;
        let mut contestants = vec![Contestant::new("plain", plain.clone())];
        let mut drafters = vec![("lookup", lookup.clone()), ("useless", Arc::new(Useless) as SharedBackend)];
        if let Some(path) = &self.draft {
            drafters.push(("draft model", model(factory, path, None).await?));
        }
        for (name, drafter) in drafters {
            contestants.push(Contestant::new(name, stack(factory, &plain, drafter, Value::Null).await?));
        }
        for length in &self.fixed {
            let backend = stack(factory, &plain, lookup.clone(), json!({"fixed_draft": length})).await?;
            contestants.push(Contestant::new(&format!("lookup, always {length}"), backend));
        }
        Ok(contestants)
    }

    fn report(&self, set: &str, contestants: &[Contestant]) {
        let plain = contestants[0].took();
        if !self.json {
            let speed = f64::from(contestants[0].tokens) / plain.as_secs_f64();
            println!(
                "{set}: {} prompts, {} at once, plain at {speed:.1} tokens/s",
                self.prompts, self.at_once
            );
        }
        for one in contestants {
            if self.json {
                let mut figures = one.json(set, plain);
                figures["median"] = one.median(&contestants[0]).into();
                println!("{figures}");
            } else {
                println!(
                    "  {:20} {:5.2}x, median {:5.2}x  {:6} tokens, {:6} drafted, {:3.0} % accepted, {} ties, {} answers differ",
                    one.name,
                    one.ratio(plain),
                    one.median(&contestants[0]),
                    one.tokens,
                    one.drafted,
                    100.0 * one.share(),
                    one.ties,
                    one.different
                );
            }
        }
    }
}
