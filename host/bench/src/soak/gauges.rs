//! The memory, handles and threads of a process, from `/proc`.

use std::fmt;
use std::fs;

use anyhow::{Context, Result};

/// The resources that a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gauges {
    /// Resident memory in MiB.
    pub(crate) memory_mib: u64,
    /// Open file descriptors.
    pub(crate) handles: u64,
    /// Threads.
    pub(crate) threads: u64,
}

impl Gauges {
    /// Reads the gauges of the process `id`.
    pub(crate) fn read(id: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{id}/status"))
            .with_context(|| format!("the process {id} has ended"))?;
        let handles = fs::read_dir(format!("/proc/{id}/fd"))?.count() as u64;
        Ok(Self { memory_mib: field(&status, "VmRSS") >> 10, handles, threads: field(&status, "Threads") })
    }
}

impl fmt::Display for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} MiB, {} handles, {} threads", self.memory_mib, self.handles, self.threads)
    }
}

/// The number of the field `name` in `/proc/PID/status`; 0 if there is none.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_of_this_process_are_read() {
        let gauges = Gauges::read(std::process::id()).unwrap();
        assert!(gauges.memory_mib > 0 && gauges.handles > 2 && gauges.threads > 0, "{gauges}");
    }
}
