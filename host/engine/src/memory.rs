//! How much memory there is, and what the models of this process may still take of it.
//!
//! Invariant: [`RESERVED`] is the sum over all living [`Reservation`]s. Weights are mapped files and caches are
//! touched as sequences grow, so the system counts both as free until they are used: they are subtracted here.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of weights and of caches that running models may use.
static RESERVED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Memory that a running model may use; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    weights: u64,
    cache: u64,
}

impl Reservation {
    /// Notes a model with `weights` bytes of weights and `cache` bytes of caches.
    pub(crate) fn new(weights: u64, cache: u64) -> Self {
        RESERVED[0].fetch_add(weights, Ordering::AcqRel);
        RESERVED[1].fetch_add(cache, Ordering::AcqRel);
        Self { weights, cache }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        RESERVED[0].fetch_sub(self.weights, Ordering::AcqRel);
        RESERVED[1].fetch_sub(self.cache, Ordering::AcqRel);
    }
}

/// Bytes that the caches of one more model of `weights` bytes may take on this machine; `None`: unknown.
pub(crate) fn spare(weights: u64) -> Option<u64> {
    let (others, caches) = (RESERVED[0].load(Ordering::Acquire), RESERVED[1].load(Ordering::Acquire));
    // What of the caches is in use is not available any more.
    let used = kilobytes("/proc/self/status", "RssAnon:").unwrap_or(0).min(caches);
    Some((available()? + used).saturating_sub(caches + others + weights))
}

/// Bytes that this process can get without swapping: what Linux says, or the limit of its control group.
pub(crate) fn available() -> Option<u64> {
    let machine = kilobytes("/proc/meminfo", "MemAvailable:")?;
    Some(machine.min(control_group().unwrap_or(u64::MAX)))
}

/// What is left in the control groups of this process (version 2) that have a limit. Files in the page cache, such as
/// mapped weights, count as free, as they do for the machine.
fn control_group() -> Option<u64> {
    const ROOT: &str = "/sys/fs/cgroup";
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = Path::new(ROOT).join(own.trim_start_matches('/'));
    let limited = folder.ancestors().take_while(|folder| folder.starts_with(ROOT));
    limited.filter_map(left_in_group).min()
}

/// What is left in one control group; `None` where it has no limit.
fn left_in_group(folder: &Path) -> Option<u64> {
    let number = |file: &str| std::fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    let files = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let files = files.lines().filter_map(|line| line.split_once(' '));
    let cached = files.filter(|(name, _)| matches!(*name, "active_file" | "inactive_file"));
    let cached: u64 = cached.filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok()).sum();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?.saturating_sub(cached)))
}

/// The figure of a line like `MemAvailable:   123 kB`, in bytes.
fn kilobytes(file: &str, name: &str) -> Option<u64> {
    let facts = std::fs::read_to_string(file).ok()?;
    let line = facts.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_has_its_limit_less_what_is_not_a_file() {
        let group = std::env::temp_dir().join(format!("tightwad-group-{}", std::process::id()));
        std::fs::create_dir_all(&group).unwrap();
        for (file, text) in [
            ("memory.max", "16000\n"),
            ("memory.current", "9000\n"),
            ("memory.stat", "anon 900\ninactive_file 6000\nactive_file 2000\nslab 100\n"),
        ] {
            std::fs::write(group.join(file), text).unwrap();
        }
        assert_eq!(left_in_group(&group), Some(15_000));
        std::fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(left_in_group(&group), None);
        std::fs::remove_dir_all(group).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_reserved_is_not_spare_until_it_is_given_back() {
        let free = available().unwrap();
        assert!(free > 1 << 20);
        let reservation = Reservation::new(0, u64::MAX / 4);
        assert_eq!(spare(0), Some(0));
        drop(reservation);
        assert!(spare(0).unwrap() > 0);
    }
}
