//! `tightwad bench`: measures side by side in one run and reports ratios.

use anyhow::{Result, bail};
use tightwad_script::Factory;
use tokio::signal::unix::{SignalKind, signal};

use crate::{attack, busy, consensus, gate, network, passes, pool, soak, speed, swarm};

/// Measures speed, side by side in one run.
#[derive(Debug, clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, clap::Subcommand)]
enum Benchmark {
    /// Compares plain decoding with speculation by every drafter, and checks that all answers are equal.
    Speed(speed::Speed),
    /// Measures the passes of a target: prefill, one token, verifications of several lengths.
    Passes(passes::Measure),
    /// Measures a target on another machine, over links of growing delay.
    Network(network::Network),
    /// Measures a pool over links of growing delay, alone and with speculation.
    Pool(pool::Pool),
    /// Compares every consensus rule with speculation and with the target alone. Also measures trees.
    Consensus(consensus::Consensus),
    /// Measures a swarm: one machine to many, each in its own network namespace with a limited uplink.
    Swarm(swarm::Swarm),
    /// Measures a gate on questions with checkable answers, and suggests its thresholds.
    Gate(gate::Gate),
    /// Compares one stream with several concurrent ones, at one endpoint or at two in turn.
    Busy(busy::Busy),
    /// Runs a host for a long time under load and faults. Checks answers, memory, handles and threads.
    Soak(soak::Soak),
    /// Attacks a host, and measures the speed that an honest client keeps.
    Attack(attack::Benchmark),
}

impl Bench {
    /// Measures backends that `factory` makes. SIGINT and SIGTERM end the benchmark's processes and network namespaces.
    pub async fn run(self, factory: &dyn Factory) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = self.measure(factory) => result,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("interrupted"),
        }
    }

    async fn measure(self, factory: &dyn Factory) -> Result<()> {
        match self.benchmark {
            Benchmark::Speed(speed) => speed.run(factory).await,
            Benchmark::Passes(passes) => passes.run(factory).await,
            Benchmark::Network(network) => network.run(factory).await,
            Benchmark::Pool(pool) => pool.run(factory).await,
            Benchmark::Consensus(consensus) => consensus.run(factory).await,
            Benchmark::Swarm(swarm) => swarm.run().await,
            Benchmark::Gate(gate) => gate.run(factory).await,
            Benchmark::Busy(busy) => busy.run().await,
            Benchmark::Soak(soak) => soak.run().await,
            Benchmark::Attack(attack) => attack.run().await,
        }
    }
}
