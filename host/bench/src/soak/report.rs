//! The result of a soak run.

use std::sync::atomic::Ordering;

use anyhow::{Result, bail};

use crate::soak::faults::FaultCounts;
use crate::soak::gauges::Gauges;
use crate::soak::run::Run;

/// Readings per minute.
const READINGS_PER_MINUTE: usize = 12;
/// Memory may grow by this part between the middle and the end of a run, because allocators keep freed pages.
const MAX_MEMORY_GROWTH: f64 = 0.1;
/// Memory may also grow by this amount.
const MAX_MEMORY_GROWTH_MIB: u64 = 32;
/// Handles and threads may differ by this number: requests run while they are counted.
const MAX_COUNT_GROWTH: u64 = 16;

/// The gauges of a run, one reading after the other.
#[derive(Debug, Default)]
pub(crate) struct Report {
    readings: Vec<Gauges>,
    pub(crate) faults: FaultCounts,
}

impl Report {
    pub(crate) fn add(&mut self, gauges: Gauges) {
        self.readings.push(gauges);
    }

    /// True once per minute.
    pub(crate) fn is_minute_over(&self) -> bool {
        self.readings.len().is_multiple_of(READINGS_PER_MINUTE)
    }

    /// The last reading as text.
    pub(crate) fn last(&self) -> String {
        self.readings.last().map(ToString::to_string).unwrap_or_default()
    }

    pub(crate) fn print(&self, run: &Run) {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        println!(
            "{} answers, all as expected; {} disconnected clients, {} stalled readers",
            count(&run.answers),
            count(&run.disconnects),
            count(&run.stalled_readers)
        );
        println!("faults: {}", self.faults);
        let (middle, end) = (median(self.third(1)), median(self.third(2)));
        println!("median of the second third: {middle}; of the last third: {end}");
    }

    /// # Errors
    ///
    /// Memory, handles or threads grew between the second and the last third of the run.
    pub(crate) fn check(&self) -> Result<()> {
        let (middle, end) = (median(self.third(1)), median(self.third(2)));
        let allowed_mib = middle.memory_mib as f64 * (1.0 + MAX_MEMORY_GROWTH) + MAX_MEMORY_GROWTH_MIB as f64;
        if end.memory_mib as f64 > allowed_mib {
            bail!("memory grew from {} to {} MiB", middle.memory_mib, end.memory_mib);
        }
        let counts = [("handles", middle.handles, end.handles), ("threads", middle.threads, end.threads)];
        for (name, before, after) in counts {
            if after > before + MAX_COUNT_GROWTH {
                bail!("the number of {name} grew from {before} to {after}");
            }
        }
        Ok(())
    }

    /// The readings of one third of the run.
    fn third(&self, index: usize) -> &[Gauges] {
        let length = self.readings.len();
        &self.readings[index * length / 3..(index + 1) * length / 3]
    }
}

/// The median of each gauge.
fn median(readings: &[Gauges]) -> Gauges {
    let median = |gauge: fn(&Gauges) -> u64| {
        let mut values: Vec<u64> = readings.iter().map(gauge).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Gauges {
        memory_mib: median(|gauges| gauges.memory_mib),
        handles: median(|gauges| gauges.handles),
        threads: median(|gauges| gauges.threads),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(memory_mib: impl Fn(u64) -> u64, handles: impl Fn(u64) -> u64) -> Report {
        let reading = |time| Gauges { memory_mib: memory_mib(time), handles: handles(time), threads: 9 };
        Report { readings: (0..90).map(reading).collect(), ..Report::default() }
    }

    #[test]
    fn report_refuses_growing_gauges() {
        assert!(report(|time| 900 + time % 40, |time| 50 + time % 9).check().is_ok());
        let error = report(|time| 900 + 20 * time, |_| 50).check().unwrap_err();
        assert!(error.to_string().starts_with("memory grew from "), "{error}");
        let error = report(|_| 900, |time| 50 + time).check().unwrap_err();
        assert!(error.to_string().starts_with("the number of handles grew"), "{error}");
    }
}
