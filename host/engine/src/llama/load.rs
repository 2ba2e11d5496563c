//! How many processors other programs leave for a pass.
//!
//! The threads of a pass wait for each other after every operation. Where one of them has to share its processor, all
//! wait for whole time slices, hundreds of times a pass: with one of two cores taken by another program, a token of
//! SmolLM2 took a second in place of 12 ms. So a pass gets no more threads than there are processors free.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tightwad_core::sync;

/// How long one look holds.
const INTERVAL: Duration = Duration::from_millis(250);
/// What others may take of a processor before it counts as taken.
const SPARE: f64 = 0.4;

/// Time that was worked, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Worked {
    /// On all processors, by anybody.
    busy: u64,
    /// On all processors, work or not.
    all: u64,
    /// By this process.
    own: u64,
}

/// What was seen last, and what came of it.
struct Watch {
    seen: Option<Worked>,
    due: Option<Instant>,
    others: f64,
    processors: usize,
}

static WATCH: Mutex<Watch> = Mutex::new(Watch { seen: None, due: None, others: 0.0, processors: 0 });

/// Threads for the next pass of somebody who would have `wanted`.
pub(crate) fn threads(wanted: i32) -> i32 {
    if wanted <= 1 {
        return wanted;
    }
    let mut watch = sync::lock(&WATCH);
    let now = Instant::now();
    if watch.due.is_none_or(|due| due <= now) {
        watch.look();
        watch.due = Some(now + INTERVAL);
    }
    if watch.processors == 0 { wanted } else { fitting(wanted, watch.processors, watch.others) }
}

impl Watch {
    fn look(&mut self) {
        let Some((now, processors)) = worked() else { return };
        if let Some(before) = self.seen.replace(now) {
            self.others = others(before, now, processors);
        }
        self.processors = processors;
    }
}

/// The processors that others kept busy.
fn others(before: Worked, after: Worked, processors: usize) -> f64 {
    let grown = |of: fn(&Worked) -> u64| of(&after).saturating_sub(of(&before)) as f64;
    let all = grown(|worked| worked.all);
    if all < 1.0 {
        return 0.0;
    }
    (grown(|worked| worked.busy) - grown(|worked| worked.own)).max(0.0) / all * processors as f64
}

/// The threads that fit beside others.
fn fitting(wanted: i32, processors: usize, others: f64) -> i32 {
    let free = (processors as f64 - others + SPARE).floor() as i32;
    free.clamp(1, wanted.max(1))
}

/// What Linux counts (proc_stat(5), proc_pid_stat(5)), and how many processors there are; `None` where
/// it does not say.
fn worked() -> Option<(Worked, usize)> {
    let (all, own) = (fs::read_to_string("/proc/stat").ok()?, fs::read_to_string("/proc/self/stat").ok()?);
    parse(&all, &own)
}

fn parse(all: &str, own: &str) -> Option<(Worked, usize)> {
    let of =
        |line: &str| -> Vec<u64> { line.split_whitespace().map_while(|word| word.parse().ok()).collect() };
    // user, nice, system, idle, iowait, irq, softirq, steal; what guests take is in `user` already.
    let times = of(all.lines().next()?.strip_prefix("cpu ")?);
    let [user, nice, system, idle, waiting, interrupts @ ..] = times.get(..8)? else { return None };
    let busy = user + nice + system + interrupts.iter().sum::<u64>();
    let processors = all.lines().skip(1).take_while(|line| line.starts_with("cpu")).count();
    // The second field is the program's name, in parentheses, with anything in it.
    let (_, fields) = own.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let own = ticks(14)? + ticks(15)?;
    Some((Worked { busy, all: busy + idle + waiting, own }, processors))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "cpu  100 10 20 1000 50 1 2 3 7 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
    const AFTER: &str = "cpu  135 10 25 1010 50 1 2 3 7 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
    const OWN: &str = "7 (a) b) R 1 1 1 0 -1 4194304 100 0 0 0 30 5 0 0 20 0 12";
    const OWN_LATER: &str = "7 (a) b) R 1 1 1 0 -1 4194304 100 0 0 0 48 7 0 0 20 0 12";

    #[test]
    fn what_others_do_is_all_less_what_is_done_here() {
        let (before, processors) = parse(BEFORE, OWN).expect("as Linux writes it");
        assert_eq!((before, processors), (Worked { busy: 136, all: 1186, own: 35 }, 2));
        let (after, _) = parse(AFTER, OWN_LATER).expect("as Linux writes it");
        // 50 ticks of two processors, 40 of them work, 20 of that here.
        assert!((others(before, after, processors) - 0.8).abs() < 1e-9);
        assert!(parse("", OWN).is_none() && parse(BEFORE, "").is_none());
    }

    #[test]
    fn as_many_threads_as_there_are_processors_free() {
        assert_eq!(fitting(2, 2, 0.0), 2);
        assert_eq!(fitting(2, 2, 0.3), 2);
        assert_eq!(fitting(2, 2, 1.0), 1);
        assert_eq!(fitting(2, 2, 2.0), 1);
        assert_eq!(fitting(8, 16, 6.0), 8);
        assert_eq!(fitting(8, 16, 10.9), 5);
    }

    #[test]
    fn this_machine_can_be_asked() {
        assert!(worked().is_some());
        assert!((1..=3).contains(&threads(3)) && threads(1) == 1);
    }
}
