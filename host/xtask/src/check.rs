//! `cargo xtask check`: the checks that take about a minute.

use anyhow::Result;

use crate::shell::{cargo, run, timed};
use crate::{book, components, structure, words};

/// The crates that need neither llama.cpp nor wasmtime.
const CRATES_WITHOUT_NATIVE_CODE: [&str; 11] = [
    "tightwad-core",
    "tightwad-net",
    "tightwad-netlab",
    "tightwad-node",
    "tightwad-remote",
    "tightwad-script",
    "tightwad-serve",
    "tightwad-swarm",
    "tightwad-tunnel",
    "tightwad-zoo",
    "xtask",
];

/// Runs all checks that need neither llama.cpp nor wasmtime.
pub(crate) fn check() -> Result<()> {
    timed("formatting", || run(cargo().args(["fmt", "--all", "--check"])))?;
    timed("structure", structure::check)?;
    timed("words", words::check)?;
    timed("book", book::check)?;
    timed("guests", components::test)?;
    let packages = || CRATES_WITHOUT_NATIVE_CODE.iter().flat_map(|name| ["--package", name]);
    let lint = ["--all-targets", "--", "-D", "warnings"];
    timed("clippy", || run(cargo().args(["clippy", "--quiet"]).args(packages()).args(lint)))?;
    timed("unit tests", || run(cargo().args(["test", "--quiet"]).args(packages()).args(["--lib", "--bins"])))
}
