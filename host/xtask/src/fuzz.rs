//! `cargo xtask fuzz`: runs the fuzz targets under libFuzzer.
//!
//! The coverage that libFuzzer needs comes from LLVM's flags, which the stable compiler has.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, output, root, run, target};

/// The flags that `cargo fuzz` gives to the compiler, without its sanitizers: the parsers have no unsafe code.
const COVERAGE_FLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];
/// One input may take this long.
const UNIT_TIMEOUT_SECONDS: u32 = 10;
/// One input may take this much memory.
const UNIT_MEMORY_MB: u32 = 1024;

/// Runs the fuzz targets.
#[derive(Debug, clap::Args)]
pub(crate) struct Fuzz {
    /// Targets: the folders of `host/fuzz/corpus`. Default: all.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Adds the inputs that reach new code to the committed corpus.
    #[arg(long)]
    keep: bool,
}

impl Fuzz {
    pub(crate) fn run(self) -> Result<()> {
        let known = known_targets()?;
        if let Some(unknown) = self.targets.iter().find(|name| !known.contains(name)) {
            bail!("unknown target '{unknown}'. Known targets: {}", known.join(", "));
        }
        let fuzzer = build()?;
        let queue = Mutex::new(if self.targets.is_empty() { known } else { self.targets });
        let failures = Mutex::new(Vec::new());
        let work = || {
            loop {
                // In the head of a `while let`, the lock would last as long as the run.
                let next = lock(&queue).pop();
                let Some(name) = next else { return };
                let run = Run { fuzzer: &fuzzer, name: &name };
                if let Err(error) = run.fuzz(self.seconds, self.keep) {
                    lock(&failures).push(format!("{name}: {error:#}"));
                }
            }
        };
        // A target uses one core.
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        let failures = failures.into_inner().unwrap_or_default();
        if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn corpora() -> PathBuf {
    root().join("host/fuzz/corpus")
}

/// The names of the targets: the folders of their corpora.
fn known_targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(corpora())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Builds the fuzzer with counters for coverage.
fn build() -> Result<PathBuf> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc -vV names no host")?;
    let folder = target().join("fuzz");
    // With a target triple, the flags apply neither to build scripts nor to procedural macros.
    let arguments = ["build", "--quiet", "--profile", "fuzz", "--package", "tightwad-fuzz"];
    let mut build = cargo();
    build.args(arguments).args(["--features", "libfuzzer", "--target", host, "--target-dir"]).arg(&folder);
    run(build.env("RUSTFLAGS", COVERAGE_FLAGS.join(" ")))?;
    Ok(folder.join(host).join("fuzz/tightwad-fuzz"))
}

/// A run of one target.
struct Run<'a> {
    fuzzer: &'a Path,
    name: &'a str,
}

impl Run<'_> {
    /// Fuzzes for `seconds`. A finding is an error that names the file of the input.
    fn fuzz(&self, seconds: u32, keep: bool) -> Result<()> {
        let folder = target().join("fuzz/runs").join(self.name);
        let (found, log) = (folder.join("corpus"), folder.join("log"));
        fs::create_dir_all(&found)?;
        let committed = corpora().join(self.name);
        let mut fuzz = self.command(File::create(&log)?)?;
        fuzz.arg(&found).arg(&committed);
        fuzz.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
        fuzz.arg(format!("-artifact_prefix={}/", folder.display()));
        let status = fuzz.status()?;
        let text = fs::read_to_string(&log)?;
        eprintln!("{}: {}", self.name, summary(&text));
        if !status.success() {
            let artifact = text.lines().find_map(|line| line.split_once("Test unit written to "));
            let artifact = artifact.map_or("no file", |(_, path)| path);
            bail!(
                "the input {artifact} breaks the parser: {}. Fix the fault and add the file to {}.",
                log.display(),
                committed.display()
            );
        }
        if keep { self.merge(&found, &committed) } else { Ok(()) }
    }

    /// Adds the inputs of `found` that reach new code to `committed`. Inputs that only repeat known code more often
    /// would be thousands of files.
    fn merge(&self, found: &Path, committed: &Path) -> Result<()> {
        let log = File::create(found.with_extension("merge"))?;
        let flags = ["-set_cover_merge=1", "-use_counters=0"];
        run(self.command(log)?.args(flags).arg(committed).arg(found))
    }

    fn command(&self, log: File) -> Result<Command> {
        let mut fuzz = Command::new(self.fuzzer);
        fuzz.env("TIGHTWAD_FUZZ_TARGET", self.name);
        fuzz.arg(format!("-timeout={UNIT_TIMEOUT_SECONDS}")).arg(format!("-rss_limit_mb={UNIT_MEMORY_MB}"));
        fuzz.stdout(log.try_clone()?).stderr(log);
        Ok(fuzz)
    }
}

/// The number of inputs and the covered code, from libFuzzer's log.
fn summary(log: &str) -> String {
    let inputs = log.lines().rev().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let coverage = log.lines().rev().find(|line| line.contains(" cov: "));
    let coverage = coverage.and_then(|line| line.split(" cov: ").nth(1)?.split_whitespace().next());
    format!(
        "{} inputs, {} covered edges",
        inputs.map_or("an unknown number of", str::trim),
        coverage.unwrap_or("unknown")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_reads_the_log_of_libfuzzer() {
        let log = "#2\tINITED cov: 12 ft: 13\n#90\tDONE   cov: 451 ft: 1203 corp: 88\n\
                   stat::number_of_executed_units: 3512\n";
        assert_eq!(summary(log), "3512 inputs, 451 covered edges");
        assert_eq!(summary("nothing"), "an unknown number of inputs, unknown covered edges");
    }
}
