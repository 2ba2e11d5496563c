//! The command line. Data goes to standard output, diagnostics to standard error; exit codes are 0,
//! 1 for failures and 2 for wrong usage.

pub(crate) mod args;
mod chat;
mod doctor;
mod gate;
mod listen;
mod node;
mod plugin;
mod pool;
mod quantize;
mod remote;
mod run;
pub(crate) mod swarm;
mod token;
mod worker;

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use tightwad_modes::KINDS;
use tightwad_sandbox::{Library, Limits, PluginEngine};
use tracing_subscriber::EnvFilter;

use crate::app::factory::HostFactory;

/// A junk drawer of mismatched machines as one OpenAI-compatible endpoint.
#[derive(Debug, Parser)]
#[command(name = "tightwad", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serves the models of a Lua script.
    Run(run::Run),
    /// Lends models to other machines.
    Node(node::Node),
    /// Lends this machine's memory and computing to pools.
    Worker(worker::Worker),
    /// Plans pools: one model over many machines.
    Pool(pool::Pool),
    /// Spreads models from machine to machine.
    Swarm(swarm::Swarm),
    /// A fleet writes, a strong model approves, corrects or rejects.
    Gate(gate::Gate),
    /// Makes, checks and lists plugins.
    Plugin(plugin::Plugin),
    /// Loads and unloads models of a running host.
    Model(remote::Model),
    /// Shows what a running host serves, and what its pools are doing.
    Status(remote::Status),
    /// Talks to an endpoint.
    Chat(chat::Chat),
    /// Checks a script, its models and the nodes around, and says how to mend what is wrong.
    Doctor(doctor::Doctor),
    /// Measures, side by side in one run.
    Bench(tightwad_bench::Bench),
    /// Makes a smaller copy of a model, for drafting.
    Quantize(quantize::Quantize),
}

/// Runs what the arguments say; returns the status to exit with.
#[must_use]
pub fn main() -> i32 {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("TIGHTWAD_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,llama-cpp-2=warn,llama_cpp_2=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match execute(arguments.command) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error:#}");
            1
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let done = runtime.block_on(async {
        match command {
            Command::Run(run) => run.run().await,
            Command::Node(node) => node.run().await,
            Command::Worker(worker) => worker.run().await,
            Command::Pool(pool) => pool.run().await,
            Command::Gate(gate) => gate.run().await,
            Command::Swarm(swarm) => swarm.run().await,
            Command::Plugin(plugin) => plugin.run().await,
            Command::Model(model) => model.run().await,
            Command::Status(status) => status.run().await,
            Command::Chat(chat) => chat.run().await,
            Command::Doctor(doctor) => doctor.run().await,
            Command::Bench(bench) => bench.run(&bench_factory()?).await,
            Command::Quantize(quantize) => quantize.run(),
        }
    });
    listen::ended();
    // Work on blocking threads cannot be cancelled, and is not waited for.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    done
}

/// How long tasks may take to be dropped at the end.
const SHUTDOWN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// What benchmarks measure, without a cache of compiled components.
fn bench_factory() -> anyhow::Result<HostFactory> {
    let engine = PluginEngine::new(None, Limits::default());
    let engine = engine.map_err(|error| anyhow::anyhow!("cannot start the plugin engine: {error:#}"))?;
    Ok(HostFactory::new(Arc::new(Library::new(Arc::new(engine), KINDS, Vec::new()))))
}
