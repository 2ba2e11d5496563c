//! `tightwad pool`: planning a pool.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::json;
use tightwad_core::{PoolSpec, Size, Token, WorkerSpec, context_length};
use tightwad_pool::{PoolPlan, plan_pool};

use crate::app::factory::HostFactory;
use crate::app::shelf;
use crate::cli::token::TokenParser;

/// Pools: one model over many machines.
#[derive(Debug, clap::Args)]
pub(crate) struct Pool {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Shows where the layers of a model would lie, or why it does not fit.
    Plan(Plan),
}

impl Pool {
    pub(crate) async fn run(self) -> Result<()> {
        match self.what {
            What::Plan(plan) => plan.run().await,
        }
    }
}

/// What to plan.
#[derive(Debug, clap::Args)]
struct Plan {
    /// The GGUF file.
    model: PathBuf,
    /// A worker; may be given several times.
    #[arg(long = "worker", value_name = "URL")]
    workers: Vec<String>,
    /// The workers' bearer token.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Puts no layers on this machine.
    #[arg(long)]
    no_local: bool,
    /// Tokens per sequence, such as 32k.
    #[arg(long, value_name = "TOKENS", value_parser = context_length)]
    context: Option<u32>,
    /// Sequences that run at once.
    #[arg(long, default_value_t = 4)]
    slots: u32,
    /// The placement plugin.
    #[arg(long)]
    plugin: Option<String>,
    /// A folder of plugins.
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Plan {
    async fn run(self) -> Result<()> {
        let factory = HostFactory::new(shelf::library(self.plugins.as_deref(), None)?);
        let plugin = factory.placement(self.plugin.as_deref()).await.map_err(|error| anyhow!(error))?;
        let plan = plan_pool(self.spec()?, plugin).await.map_err(|error| anyhow!(error.to_string()))?;
        if self.json {
            let workers = plan.workers.iter().map(|(name, found)| {
                json!({"name": name, "facts": found.facts, "bandwidth": found.bandwidth,
                       "round_trip_ns": found.round_trip.as_nanos() as u64})
            });
            let workers: Vec<_> = workers.collect();
            println!(
                "{:#}",
                json!({"parts": plan.parts, "token_ns": plan.token, "plugin": plan.plugin, "workers": workers})
            );
            return Ok(());
        }
        show(&plan);
        Ok(())
    }

    fn spec(&self) -> Result<PoolSpec> {
        let worker = |url: &String| {
            WorkerSpec::new(url, self.token.as_ref(), None)
                .ok_or_else(|| anyhow!("--worker {url}: that is no address such as http://192.168.1.21:7711"))
        };
        Ok(PoolSpec {
            path: self.model.clone(),
            name: "model".to_owned(),
            workers: self.workers.iter().map(worker).collect::<Result<_>>()?,
            local: !self.no_local,
            context: self.context,
            slots: self.slots.max(1),
            queue: None,
            threads: None,
            plugin: None,
            pins: Vec::new(),
            ttl: None,
            pinned: false,
            on_demand: true,
            patience: Duration::ZERO,
        })
    }
}

/// Prints a plan as a table.
fn show(plan: &PoolPlan) {
    let head = ["layers", "weights", "cache", "way", "link", "reads"];
    let [layers, weights, cache, way, link, reads] = head;
    println!("{:24} {layers:>10} {weights:>12} {cache:>12} {way:>10} {link:>14} {reads:>14}", "machine");
    for part in &plan.parts {
        let layers = match part.layers {
            0 => "-".to_owned(),
            layers => format!("{}-{}", part.first, part.first + layers - 1),
        };
        let (weights, cache) = (Size(part.weights).to_string(), Size(part.cache).to_string());
        let found = plan.workers.iter().find(|(name, _)| *name == part.machine).map(|(_, found)| found);
        let [way, link, reads] = found.map_or_else(
            || ["-"; 3].map(str::to_owned),
            |found| {
                let way = format!("{:.1} ms", found.round_trip.as_secs_f64() * 1e3);
                [way, format!("{}/s", Size(found.bandwidth)), format!("{}/s", Size(found.facts.speed))]
            },
        );
        let head = if part.output { " + output head" } else { "" };
        println!(
            "{:24} {layers:>10} {weights:>12} {cache:>12} {way:>10} {link:>14} {reads:>14}{head}",
            part.machine
        );
    }
    let idle = plan.workers.iter().filter(|(name, _)| !plan.parts.iter().any(|part| part.machine == *name));
    for (name, _) in idle {
        println!("{name:24} left out: it would make each token slower");
    }
    let token = Duration::from_nanos(plan.token).as_secs_f64() * 1e3;
    println!("{}: about {token:.1} ms a token", plan.plugin);
}
