//! `tightwad pool`: plans a pool without starting it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::json;
use tightwad_core::{PluginSpec, PoolSpec, Size, Token, WorkerSpec, parse_context_length};
use tightwad_net::ServerUrl;
use tightwad_pool::{PoolPlan, plan_pool};

use crate::app::factory::HostFactory;
use crate::app::plugin_folders;
use crate::cli::machine::MachineArgs;
use crate::cli::token::TokenParser;

/// Plans pools: one model over many machines.
#[derive(Debug, clap::Args)]
pub(crate) struct Pool {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Shows the placement of a model's layers, or the missing memory.
    Plan(Plan),
}

impl Pool {
    pub(crate) async fn run(self) -> Result<()> {
        match self.command {
            Command::Plan(plan) => plan.run().await,
        }
    }
}

/// Arguments of `tightwad pool plan`.
#[derive(Debug, clap::Args)]
struct Plan {
    /// GGUF file.
    model: PathBuf,
    /// Address of a worker. Repeatable.
    #[arg(long = "worker", value_name = "URL")]
    workers: Vec<String>,
    /// Token of the workers.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Puts no layers on this machine.
    #[arg(long)]
    exclude_host: bool,
    /// Tokens per sequence, such as 32k.
    #[arg(long, value_name = "TOKENS", value_parser = parse_context_length)]
    context: Option<u32>,
    /// Sequences that run at the same time.
    #[arg(long, default_value_t = 4)]
    slots: u32,
    /// Placement policy: a plugin's name or .wasm file.
    #[arg(long)]
    policy: Option<String>,
    /// Folder of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_dir: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Plan {
    async fn run(self) -> Result<()> {
        let factory = HostFactory::new(plugin_folders::library(self.plugins_dir.as_deref(), None)?);
        let policy = self.policy.clone().map(|name| PluginSpec { name, sha256: None });
        let plugin = factory.placement(policy.as_ref()).await.map_err(|error| anyhow!(error))?;
        let plan = plan_pool(self.spec()?, plugin).await.map_err(|error| anyhow!(error.to_string()))?;
        for (name, error) in &plan.unreachable {
            eprintln!("warning: the plan leaves out {name}: {error}");
        }
        if self.json {
            let workers = plan.workers.iter().map(|(name, found)| {
                json!({"name": name, "info": found.info, "link_bandwidth": found.bandwidth,
                       "round_trip_ns": found.round_trip.as_nanos() as u64})
            });
            let workers: Vec<_> = workers.collect();
            println!(
                "{:#}",
                json!({"assignments": plan.assignments, "time_per_token_ns": plan.time_per_token_ns,
                       "policy": plan.plugin, "workers": workers})
            );
            return Ok(());
        }
        print_plan(&plan);
        Ok(())
    }

    fn spec(&self) -> Result<PoolSpec> {
        let worker = |url: &String| {
            let url = url.parse::<ServerUrl>().map_err(|error| anyhow!("--worker {error}"))?;
            self.machine.check("--worker", &url.to_string(), url.is_exposed())?;
            WorkerSpec::new(&url.address(), self.token.as_ref(), None).ok_or_else(|| {
                anyhow!("--worker {url} is not an address. Copy the one that the worker prints.")
            })
        };
        Ok(PoolSpec {
            path: self.model.clone(),
            name: "model".to_owned(),
            workers: self.workers.iter().map(worker).collect::<Result<_>>()?,
            include_host: !self.exclude_host,
            context: self.context,
            slots: self.slots.max(1),
            max_queue: None,
            threads: None,
            policy: None,
            override_tensors: Vec::new(),
            idle_timeout: None,
            keep_loaded: false,
            on_demand: true,
            wait_timeout: Duration::ZERO,
        })
    }
}

/// Prints a plan as a table.
fn print_plan(plan: &PoolPlan) {
    let columns = ["layers", "weights", "cache", "round trip", "link", "memory"];
    let [layers, weights, cache, round_trip, link, memory] = columns;
    println!(
        "{:24} {layers:>10} {weights:>12} {cache:>12} {round_trip:>10} {link:>14} {memory:>14}",
        "machine"
    );
    for assignment in &plan.assignments {
        let layers = match assignment.layers {
            0 => "-".to_owned(),
            layers => format!("{}-{}", assignment.first, assignment.first + layers - 1),
        };
        let (weights, cache) = (Size(assignment.weights).to_string(), Size(assignment.cache).to_string());
        let worker =
            plan.workers.iter().find(|(name, _)| *name == assignment.machine).map(|(_, worker)| worker);
        let [round_trip, link, memory] = worker.map_or_else(
            || ["-"; 3].map(str::to_owned),
            |worker| {
                let round_trip = format!("{:.1} ms", worker.round_trip.as_secs_f64() * 1e3);
                [
                    round_trip,
                    format!("{}/s", Size(worker.bandwidth)),
                    format!("{}/s", Size(worker.info.memory_bandwidth)),
                ]
            },
        );
        let head = if assignment.output { " + output head" } else { "" };
        println!(
            "{:24} {layers:>10} {weights:>12} {cache:>12} {round_trip:>10} {link:>14} {memory:>14}{head}",
            assignment.machine
        );
    }
    let is_used = |name: &String| plan.assignments.iter().any(|assignment| assignment.machine == *name);
    let unused = plan.workers.iter().filter(|(name, _)| !is_used(name));
    for (name, _) in unused {
        println!("{name:24} left out: each token would take longer");
    }
    let token_ms = Duration::from_nanos(plan.time_per_token_ns).as_secs_f64() * 1e3;
    println!("{}: about {token_ms:.1} ms per token", plan.plugin);
}
