//! The memory of this machine, and the part that is available to another model.
//!
//! Invariant: [`RESERVED_BYTES`] is the sum over all live [`Reservation`]s. Weights are mapped files, and
//! caches are touched as sequences grow. The system counts both as free memory until their use, so this
//! module subtracts them.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes reserved by running models: for weights, and for caches.
static RESERVED_BYTES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// The memory that a running model may use. Dropping the reservation releases the memory.
#[derive(Debug)]
pub(crate) struct Reservation {
    weight_bytes: u64,
    cache_bytes: u64,
}

impl Reservation {
    /// Reserves `weight_bytes` for weights and `cache_bytes` for caches.
    pub(crate) fn new(weight_bytes: u64, cache_bytes: u64) -> Self {
        RESERVED_BYTES[0].fetch_add(weight_bytes, Ordering::AcqRel);
        RESERVED_BYTES[1].fetch_add(cache_bytes, Ordering::AcqRel);
        Self { weight_bytes, cache_bytes }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        RESERVED_BYTES[0].fetch_sub(self.weight_bytes, Ordering::AcqRel);
        RESERVED_BYTES[1].fetch_sub(self.cache_bytes, Ordering::AcqRel);
    }
}

/// Bytes available on this machine for the caches of another model with `weight_bytes` bytes of weights.
/// `None`: unknown.
pub(crate) fn available_for_caches(weight_bytes: u64) -> Option<u64> {
    let (reserved_weights, reserved_caches) =
        (RESERVED_BYTES[0].load(Ordering::Acquire), RESERVED_BYTES[1].load(Ordering::Acquire));
    // The system has already subtracted the used part of the caches.
    let used = read_kilobytes("/proc/self/status", "RssAnon:").unwrap_or(0).min(reserved_caches);
    Some((available_bytes()? + used).saturating_sub(reserved_caches + reserved_weights + weight_bytes))
}

/// Bytes that this process can allocate without swapping: Linux's estimate, or the limit of the control
/// group.
pub(crate) fn available_bytes() -> Option<u64> {
    let machine = read_kilobytes("/proc/meminfo", "MemAvailable:")?;
    Some(machine.min(cgroup_available().unwrap_or(u64::MAX)))
}

/// The smallest available size among the limited control groups (version 2) of this process. Files in the
/// page cache, such as mapped weights, count as free, as they do for the machine.
fn cgroup_available() -> Option<u64> {
    const ROOT: &str = "/sys/fs/cgroup";
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own_group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = Path::new(ROOT).join(own_group.trim_start_matches('/'));
    let limited = folder.ancestors().take_while(|folder| folder.starts_with(ROOT));
    limited.filter_map(cgroup_available_in).min()
}

/// Bytes available in one control group; `None` if it has no limit.
fn cgroup_available_in(folder: &Path) -> Option<u64> {
    let number = |file: &str| std::fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    let files = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let files = files.lines().filter_map(|line| line.split_once(' '));
    let cached = files.filter(|(name, _)| matches!(*name, "active_file" | "inactive_file"));
    let cached: u64 = cached.filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok()).sum();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?.saturating_sub(cached)))
}

/// Reads the number of a line such as `MemAvailable:   123 kB`, in bytes.
fn read_kilobytes(file: &str, name: &str) -> Option<u64> {
    let facts = std::fs::read_to_string(file).ok()?;
    let line = facts.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_available_counts_files_as_free() {
        let group = std::env::temp_dir().join(format!("tightwad-group-{}", std::process::id()));
        std::fs::create_dir_all(&group).unwrap();
        for (file, text) in [
            ("memory.max", "16000\n"),
            ("memory.current", "9000\n"),
            ("memory.stat", "anon 900\ninactive_file 6000\nactive_file 2000\nslab 100\n"),
        ] {
            std::fs::write(group.join(file), text).unwrap();
        }
        assert_eq!(cgroup_available_in(&group), Some(15_000));
        std::fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(cgroup_available_in(&group), None);
        std::fs::remove_dir_all(group).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn reserved_memory_is_unavailable_until_dropped() {
        let free = available_bytes().unwrap();
        assert!(free > 1 << 20);
        let reservation = Reservation::new(0, u64::MAX / 4);
        assert_eq!(available_for_caches(0), Some(0));
        drop(reservation);
        assert!(available_for_caches(0).unwrap() > 0);
    }
}
