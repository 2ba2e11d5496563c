//! Everything that must pass, and the benchmark.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::shell::{cargo, run, target};
use crate::tools::Tools;
use crate::{components, layering, models, tools};

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
    ("layering", |_| layering::check()),
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
        eprintln!("== tests");
        let mut test = cargo();
        test.args(["test", "--workspace", "--no-fail-fast"]).env("TIGHTWAD_MODELS", models::folder());
        if self.quick {
            test.env("TIGHTWAD_QUICK", "1");
        }
        if self.full {
            test.args(["--", "--include-ignored"]);
        }
        run(tools.for_command(&mut test))
    }
}

fn timed(name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("== {name}");
    let start = Instant::now();
    step().with_context(|| format!("{name} failed"))?;
    eprintln!("== {name}: {:.0} s", start.elapsed().as_secs_f32());
    Ok(())
}

/// Builds, and runs `tightwad bench` with `arguments`.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let tools = tools::ready()?;
    models::get("smollm2")?;
    run(tools.for_command(cargo().args(["build", "--package", "tightwad"])))?;
    run(Command::new(target().join("debug/tightwad"))
        .arg("bench")
        .args(arguments)
        .current_dir(crate::shell::root()))
}
