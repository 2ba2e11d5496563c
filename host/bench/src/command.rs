//! `tightwad bench`: measurements, side by side in one run, as ratios.

use anyhow::{Result, bail};
use tightwad_script::Factory;
use tokio::signal::unix::{SignalKind, signal};

use crate::{busy, consensus, gate, network, passes, pool, speed, swarm};

/// Measures, side by side in one run.
#[derive(Debug, clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Plain decoding against speculation with every drafter, prompt by prompt, and whether every
    /// answer is the same.
    Speed(speed::Speed),
    /// What a target's passes take: reading a prompt, one token, verifications of several lengths.
    Passes(passes::Measure),
    /// A target on another machine, over links of growing delay.
    Network(network::Network),
    /// One model over workers, over links of growing delay, alone and with speculation on top.
    Pool(pool::Pool),
    /// Consensus by every rule, against speculation and the target alone; and trees of drafts.
    Consensus(consensus::Consensus),
    /// A model from one machine to many, each with a network namespace and an uplink of its own; and what kills
    /// cost.
    Swarm(swarm::Swarm),
    /// A fleet, a gate and its reviewer on questions with checkable answers; suggests a threshold.
    Gate(gate::Gate),
    /// One stream against several at once, at one endpoint or at two in turn.
    Busy(busy::Busy),
}

impl Bench {
    /// Measures with what `factory` makes; told to end, it takes down what it made: processes, network namespaces.
    pub async fn run(self, factory: &dyn Factory) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = self.measure(factory) => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("interrupted"),
        }
    }

    async fn measure(self, factory: &dyn Factory) -> Result<()> {
        match self.what {
            What::Speed(speed) => speed.run(factory).await,
            What::Passes(passes) => passes.run(factory).await,
            What::Network(network) => network.run(factory).await,
            What::Pool(pool) => pool.run(factory).await,
            What::Consensus(consensus) => consensus.run(factory).await,
            What::Swarm(swarm) => swarm.run().await,
            What::Gate(gate) => gate.run(factory).await,
            What::Busy(busy) => busy.run().await,
        }
    }
}
