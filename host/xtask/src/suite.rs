//! Everything that must pass, and the benchmark.

use std::process::Command;

use anyhow::Result;

use crate::shell::{cargo, run, target, timed};
use crate::tools::Tools;
use crate::{components, ignored, models, structure, tools};

/// Runs everything that must pass.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// Leaves out what needs the large models.
    #[arg(long)]
    quick: bool,
    /// Also runs the tests that take many minutes.
    #[arg(long)]
    full: bool,
}

type Step = (&'static str, fn(&Tools) -> Result<()>);

const STEPS: [Step; 7] = [
    ("formatting", |_| run(cargo().args(["fmt", "--all", "--check"]))),
    ("structure", |_| structure::check()),
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
        let tools = tools::ready()?;
        for (name, step) in STEPS {
            timed(name, || step(&tools))?;
        }
        if !self.quick {
            timed("large models", || {
                ["qwen-0.5b", "qwen-1.5b"].iter().try_for_each(|name| models::get(name).map(drop))
            })?;
        }
        let left_out = ignored::left_out(self.quick, self.full)?;
        let mut test = cargo();
        test.args(["test", "--workspace", "--no-fail-fast", "--", "--include-ignored"]);
        test.args(left_out.iter().flat_map(|test| ["--skip", test.name.as_str()]));
        test.env("TIGHTWAD_MODELS", models::folder());
        timed("tests", || run(tools.for_command(&mut test)))?;
        for test in left_out {
            eprintln!("left out: {} ({})", test.name, test.reason);
        }
        Ok(())
    }
}

/// Builds what people install, and runs `tightwad bench` with `arguments`.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let tools = tools::ready()?;
    models::get("smollm2")?;
    run(tools.for_command(cargo().args(["build", "--release", "--package", "tightwad"])))?;
    run(Command::new(target().join("release/tightwad"))
        .arg("bench")
        .args(arguments)
        .current_dir(crate::shell::root()))
}
