//! Runs other programs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let manifest_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_folder.ancestors().nth(2).unwrap_or(manifest_folder)
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// The cargo that started this program.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    // `cargo run` sets these variables for this program only.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(name);
    }
    cargo
}

/// Runs a program to its end.
///
/// # Errors
/// The program does not start, or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", command_text(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", command_text(command));
    }
    Ok(())
}

/// Runs a program and returns its standard output, trimmed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start {}", command_text(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", command_text(command), output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The existing files that git tracks or does not ignore, as paths from the root.
pub(crate) fn listed_files() -> Result<Vec<String>> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let files = output(Command::new("git").current_dir(root()).args(arguments))?;
    // Git also lists a deleted file until the deletion is committed.
    Ok(files.lines().filter(|file| root().join(file).exists()).map(str::to_owned).collect())
}

/// Runs `step` and prints its time.
pub(crate) fn timed(name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("== {name}");
    let start = Instant::now();
    step().with_context(|| format!("{name} failed"))?;
    eprintln!("== {name}: {:.0} s", start.elapsed().as_secs_f32());
    Ok(())
}

/// True if the program exists and runs.
pub(crate) fn is_available(program: &str, argument: &str) -> bool {
    let quiet = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

fn command_text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).take(8).collect::<Vec<_>>().join(" ")
}
