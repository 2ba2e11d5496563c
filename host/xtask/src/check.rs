//! `cargo xtask check`: what can be known in a minute.

use anyhow::Result;

use crate::shell::{cargo, run, timed};
use crate::{components, structure};

/// The crates that need neither llama.cpp nor wasmtime.
const LIGHT: [&str; 11] = [
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

/// Checks form, structure and logic, without native code.
pub(crate) fn check() -> Result<()> {
    timed("formatting", || run(cargo().args(["fmt", "--all", "--check"])))?;
    timed("structure", structure::check)?;
    timed("guests", components::test)?;
    let packages = || LIGHT.iter().flat_map(|name| ["--package", name]);
    let lint = ["--all-targets", "--", "-D", "warnings"];
    timed("clippy", || run(cargo().args(["clippy", "--quiet"]).args(packages()).args(lint)))?;
    timed("unit tests", || run(cargo().args(["test", "--quiet"]).args(packages()).args(["--lib", "--bins"])))
}
