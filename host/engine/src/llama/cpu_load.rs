//! Measures the CPU load of other programs and scripts, and limits the threads of a pass to the free cores.
//!
//! The threads of a pass wait for each other after every operation. If one thread shares its core with
//! another program, all threads wait for complete time slices, hundreds of times per pass. With one of two
//! cores busy with another program, a token of SmolLM2 took one second instead of 12 ms. So a pass gets no
//! more threads than there are free cores.
//!
//! Lua functions run in this process, but compute like another program. Abandoned ones do not count: their threads have the
//! lowest priority and take next to nothing from a pass.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tightwad_core::{SCRIPT_THREAD_NAME, sync};

/// The time between two samples of the load.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// The load of other programs, in cores, that does not count as a busy core.
const IGNORED_LOAD: f64 = 0.4;

/// Threads with this `nice` value or more do not count as load.
const LOW_PRIORITY: i64 = 10;

/// CPU times in clock ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CpuTimes {
    /// Busy time of all processes on all cores.
    busy_ticks: u64,
    /// Elapsed time of all cores, busy or idle.
    total_ticks: u64,
    /// Busy time of this process.
    process_ticks: u64,
    /// Busy times of the threads that run scripts, by their ids.
    script_ticks: HashMap<u32, u64>,
}

/// The last sample and its results.
struct LoadMonitor {
    last: Option<CpuTimes>,
    next_sample: Option<Instant>,
    foreign_load: f64,
    cores: usize,
}

static MONITOR: Mutex<LoadMonitor> =
    Mutex::new(LoadMonitor { last: None, next_sample: None, foreign_load: 0.0, cores: 0 });

/// The number of threads for the next pass, at most `max_threads`.
pub(crate) fn thread_count(max_threads: i32) -> i32 {
    if max_threads <= 1 {
        return max_threads;
    }
    let mut monitor = sync::lock(&MONITOR);
    let now = Instant::now();
    if monitor.next_sample.is_none_or(|next_sample| next_sample <= now) {
        monitor.sample();
        monitor.next_sample = Some(now + SAMPLE_INTERVAL);
    }
    if monitor.cores == 0 {
        max_threads
    } else {
        free_threads(max_threads, monitor.cores, monitor.foreign_load)
    }
}

impl LoadMonitor {
    fn sample(&mut self) {
        let Some((now, cores)) = cpu_times() else { return };
        if let Some(before) = &self.last {
            self.foreign_load = foreign_load(before, &now, cores);
        }
        self.last = Some(now);
        self.cores = cores;
    }
}

/// The number of cores that other processes and scripts kept busy between two samples.
fn foreign_load(before: &CpuTimes, after: &CpuTimes, cores: usize) -> f64 {
    let increase = |of: fn(&CpuTimes) -> u64| of(after).saturating_sub(of(before)) as f64;
    let total = increase(|times| times.total_ticks);
    if total < 1.0 {
        return 0.0;
    }
    let other_processes =
        (increase(|times| times.busy_ticks) - increase(|times| times.process_ticks)).max(0.0);
    let scripts = after.script_ticks.iter().map(|(thread, ticks)| {
        // A new thread has computed all of its time since the last sample.
        ticks.saturating_sub(before.script_ticks.get(thread).copied().unwrap_or_default())
    });
    (other_processes + scripts.sum::<u64>() as f64) / total * cores as f64
}

/// The number of threads that fit beside the load of other processes.
fn free_threads(max_threads: i32, cores: usize, foreign_load: f64) -> i32 {
    let free = (cores as f64 - foreign_load + IGNORED_LOAD).floor() as i32;
    free.clamp(1, max_threads.max(1))
}

/// CPU times from Linux (proc_stat(5), proc_pid_stat(5)), and the number of cores. `None` if they are
/// unavailable.
fn cpu_times() -> Option<(CpuTimes, usize)> {
    let (system_stat, process_stat) =
        (fs::read_to_string("/proc/stat").ok()?, fs::read_to_string("/proc/self/stat").ok()?);
    let (times, cores) = parse(&system_stat, &process_stat)?;
    let threads = fs::read_dir("/proc/self/task").ok()?.flatten();
    let script_ticks = threads.filter_map(|thread| {
        // A thread that has ended meanwhile has no file.
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        Some((thread.file_name().to_str()?.parse().ok()?, script_ticks(&stat)?))
    });
    Some((CpuTimes { script_ticks: script_ticks.collect(), ..times }, cores))
}

/// The busy time of a thread that runs a script; `None` for other threads and for threads with a low priority.
fn script_ticks(thread_stat: &str) -> Option<u64> {
    let (name, fields) = thread_stat.split_once(" (")?.1.rsplit_once(") ")?;
    if name != SCRIPT_THREAD_NAME {
        return None;
    }
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let niceness: i64 = fields.get(19 - 3)?.parse().ok()?;
    if niceness < LOW_PRIORITY { ticks(&fields) } else { None }
}

/// User and system time from the fields after the name (proc_pid_stat(5)).
fn ticks(fields: &[&str]) -> Option<u64> {
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(field(14)? + field(15)?)
}

fn parse(system_stat: &str, process_stat: &str) -> Option<(CpuTimes, usize)> {
    let numbers =
        |line: &str| -> Vec<u64> { line.split_whitespace().map_while(|word| word.parse().ok()).collect() };
    // user, nice, system, idle, iowait, irq, softirq, steal. `user` already includes the time of guests.
    let times = numbers(system_stat.lines().next()?.strip_prefix("cpu ")?);
    let [user, nice, system, idle, waiting, interrupts @ ..] = times.get(..8)? else { return None };
    let busy_ticks = user + nice + system + interrupts.iter().sum::<u64>();
    let cores = system_stat.lines().skip(1).take_while(|line| line.starts_with("cpu")).count();
    // The second field is the name of the program in parentheses. This name may contain any character.
    let (_, fields) = process_stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let process_ticks = ticks(&fields)?;
    let total_ticks = busy_ticks + idle + waiting;
    Some((CpuTimes { busy_ticks, total_ticks, process_ticks, script_ticks: HashMap::new() }, cores))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM_BEFORE: &str = "cpu  100 10 20 1000 50 1 2 3 7 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
    const SYSTEM_AFTER: &str = "cpu  135 10 25 1010 50 1 2 3 7 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
    const PROCESS_BEFORE: &str = "7 (a) b) R 1 1 1 0 -1 4194304 100 0 0 0 30 5 0 0 20 0 12";
    const PROCESS_AFTER: &str = "7 (a) b) R 1 1 1 0 -1 4194304 100 0 0 0 48 7 0 0 20 0 12";

    #[test]
    fn foreign_load_excludes_own_ticks() {
        let (before, cores) = parse(SYSTEM_BEFORE, PROCESS_BEFORE).expect("as Linux writes it");
        assert_eq!((before.busy_ticks, before.total_ticks, before.process_ticks, cores), (136, 1186, 35, 2));
        let (mut after, _) = parse(SYSTEM_AFTER, PROCESS_AFTER).expect("as Linux writes it");
        // Two cores ran for 50 ticks: 40 were busy, 20 of them with this process.
        assert!((foreign_load(&before, &after, cores) - 0.8).abs() < 1e-9);
        // Half of this process's time was a script's.
        after.script_ticks.insert(9, 10);
        assert!((foreign_load(&before, &after, cores) - 1.2).abs() < 1e-9);
        assert!(parse("", PROCESS_BEFORE).is_none() && parse(SYSTEM_BEFORE, "").is_none());
    }

    #[test]
    fn only_script_threads_of_normal_priority_count() {
        let stat =
            |name: &str, nice: &str| format!("8 ({name}) R 1 1 1 0 -1 64 100 0 0 0 30 5 0 0 20 {nice} 12 0");
        assert_eq!(script_ticks(&stat("lua", "0")), Some(35));
        assert_eq!(script_ticks(&stat("lua", "19")), None);
        assert_eq!(script_ticks(&stat("engine", "0")), None);
        assert_eq!(script_ticks(""), None);
    }

    #[test]
    fn thread_count_is_limited_to_free_cores() {
        assert_eq!(free_threads(2, 2, 0.0), 2);
        assert_eq!(free_threads(2, 2, 0.3), 2);
        assert_eq!(free_threads(2, 2, 1.0), 1);
        assert_eq!(free_threads(2, 2, 2.0), 1);
        assert_eq!(free_threads(8, 16, 6.0), 8);
        assert_eq!(free_threads(8, 16, 10.9), 5);
    }

    #[test]
    fn cpu_times_are_available_on_linux() {
        assert!(cpu_times().is_some());
        assert!((1..=3).contains(&thread_count(3)) && thread_count(1) == 1);
    }
}
