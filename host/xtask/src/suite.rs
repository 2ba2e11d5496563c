//! `cargo xtask test`: all checks and tests. Also builds and runs the benchmark.

use std::process::Command;

use anyhow::Result;

use crate::shell::{cargo, run, target, timed};
use crate::tools::Tools;
use crate::{book, components, ignored, models, structure, tools, words};

/// Runs all checks and tests.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// Leaves out the tests that need the large models.
    #[arg(long)]
    quick: bool,
    /// Also runs the tests that take many minutes.
    #[arg(long)]
    full: bool,
}

type Step = (&'static str, fn(&Tools) -> Result<()>);

const STEPS: [Step; 9] = [
    ("formatting", |_| run(cargo().args(["fmt", "--all", "--check"]))),
    ("structure", |_| structure::check()),
    ("words", |_| words::check()),
    ("book", |_| book::check()),
    ("components", |_| components::check()),
    ("guests", |_| components::test()),
    ("clippy", |tools| {
        let lint = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        run(tools.for_command(cargo().args(lint)))
    }),
    ("documentation", |tools| {
        let doc = ["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"];
        run(tools.for_command(cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings")))
    }),
    ("models", |_| models::get("smollm2").map(drop)),
];

impl Test {
    pub(crate) fn run(self) -> Result<()> {
        let tools = tools::install()?;
        for (name, step) in STEPS {
            timed(name, || step(&tools))?;
        }
        if !self.quick {
            timed("large models", || {
                ["qwen-0.5b", "qwen-1.5b"].iter().try_for_each(|name| models::get(name).map(drop))
            })?;
        }
        let skipped = ignored::skipped_tests(self.quick, self.full)?;
        let mut test = cargo();
        test.args(["test", "--workspace", "--no-fail-fast", "--", "--include-ignored"]);
        test.args(skipped.iter().flat_map(|test| ["--skip", test.name.as_str()]));
        test.env("TIGHTWAD_MODELS", models::folder());
        timed("tests", || run(tools.for_command(&mut test)))?;
        for test in skipped {
            eprintln!("skipped: {} ({})", test.name, test.reason);
        }
        Ok(())
    }
}

/// Builds the release profile, and runs `tightwad bench` with `arguments`.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let tools = tools::install()?;
    models::get("smollm2")?;
    run(tools.for_command(cargo().args(["build", "--release", "--package", "tightwad"])))?;
    run(Command::new(target().join("release/tightwad"))
        .arg("bench")
        .args(arguments)
        .current_dir(crate::shell::root()))
}
