//! The faults of a soak run: reloads, swapped plugins, killed nodes and workers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::soak::lab::Lab;

/// The number of faults of each kind.
#[derive(Debug, Default)]
pub(crate) struct FaultCounts {
    reloads: u64,
    swapped_plugins: u64,
    killed_nodes: u64,
    killed_workers: u64,
}

impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{} reloads, {} swapped plugins, {} killed nodes, {} killed workers",
            self.reloads, self.swapped_plugins, self.killed_nodes, self.killed_workers
        )
    }
}

/// Makes one fault after the other.
pub(crate) struct Faults {
    policy: PathBuf,
    interval: Duration,
    next_fault: Instant,
    number: u64,
    counts: FaultCounts,
}

impl Faults {
    /// One fault per `interval`. Swaps of plugins change `policy`.
    pub(crate) fn new(policy: &Path, interval: Duration) -> Self {
        Self {
            policy: policy.to_owned(),
            interval,
            next_fault: Instant::now() + interval,
            number: 0,
            counts: FaultCounts::default(),
        }
    }

    /// The numbers of faults so far.
    pub(crate) fn into_counts(self) -> FaultCounts {
        self.counts
    }

    /// Makes the next fault if it is due. A killed process starts again with the next fault of its kind.
    pub(crate) async fn make_due(&mut self, lab: &mut Lab) -> Result<()> {
        if Instant::now() < self.next_fault {
            return Ok(());
        }
        self.next_fault = Instant::now() + self.interval;
        let number = self.number;
        self.number += 1;
        match number % 6 {
            0 | 3 => self.reload(lab, number)?,
            1 => self.swap_plugin(lab, number)?,
            2 => {
                lab.node.kill();
                self.counts.killed_nodes += 1;
            }
            4 => {
                let worker = &mut lab.workers[(number / 6 % 2) as usize];
                worker.kill();
                self.counts.killed_workers += 1;
            }
            _ => {
                lab.node.restart()?;
                lab.workers[(number / 6 % 2) as usize].restart()?;
            }
        }
        Ok(())
    }

    fn reload(&mut self, lab: &Lab, version: u64) -> Result<()> {
        lab.write_script(version)?;
        self.counts.reloads += 1;
        Ok(())
    }

    /// Replaces the policy by the same one with another digest: a custom section at its end.
    fn swap_plugin(&mut self, lab: &Lab, version: u64) -> Result<()> {
        let mut component = std::fs::read(&self.policy)?;
        let name = format!("version {version}");
        component.extend([0, name.len() as u8 + 1, name.len() as u8]);
        component.extend(name.as_bytes());
        let (temporary, path) = (lab.plugins.join("swapped.new"), lab.plugins.join("swapped.wasm"));
        std::fs::write(&temporary, component)?;
        std::fs::rename(temporary, path)?;
        self.counts.swapped_plugins += 1;
        Ok(())
    }
}
