//! Building the components: the built-in plugins and the ones that tests use.
//!
//! They are committed, so that the host builds without this toolchain; the check rebuilds them and
//! compares bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::rust_src;
use crate::shell::{cargo, output, root, run};

/// Packages and the files they become, below `plugins/`.
const COMPONENTS: [(&str, &str); 22] = [
    ("tightwad_speculation", "dist/speculation.wasm"),
    ("tightwad_consensus", "dist/consensus.wasm"),
    ("tightwad_gate", "dist/gate.wasm"),
    ("tightwad_swarm", "dist/swarm.wasm"),
    ("tightwad_pooling", "dist/pooling.wasm"),
    ("fixture_loop_forever", "fixtures/dist/loop-forever.wasm"),
    ("fixture_allocate", "fixtures/dist/allocate.wasm"),
    ("fixture_panic", "fixtures/dist/panic.wasm"),
    ("fixture_third_round", "fixtures/dist/third-round.wasm"),
    ("fixture_early_return", "fixtures/dist/early-return.wasm"),
    ("fixture_chatter", "fixtures/dist/chatter.wasm"),
    ("fixture_wrong_drafts", "fixtures/dist/wrong-drafts.wasm"),
    ("fixture_gate_approve", "fixtures/dist/gate-approve.wasm"),
    ("fixture_gate_panic", "fixtures/dist/gate-panic.wasm"),
    ("fixture_policy_first", "fixtures/dist/policy-first.wasm"),
    ("fixture_policy_verify", "fixtures/dist/policy-verify.wasm"),
    ("fixture_policy_panic", "fixtures/dist/policy-panic.wasm"),
    ("fixture_policy_loop", "fixtures/dist/policy-loop.wasm"),
    ("fixture_policy_invent", "fixtures/dist/policy-invent.wasm"),
    ("two_of_a_kind", "fixtures/dist/two-of-a-kind.wasm"),
    ("fixture_missing_export", "fixtures/dist/missing-export.wasm"),
    ("fixture_other_version", "fixtures/dist/other-version.wasm"),
];
const TARGET: &str = "wasm32-unknown-unknown";

/// Builds all components into their places.
pub(crate) fn build() -> Result<()> {
    let built = compile(&library()?)?;
    for (crate_name, file) in COMPONENTS {
        let place = plugins().join(file);
        fs::create_dir_all(place.parent().unwrap_or(Path::new(".")))?;
        fs::copy(built.join(format!("{crate_name}.wasm")), &place)?;
    }
    for folder in ["dist", "fixtures/dist"] {
        fs::write(plugins().join(folder).join("SHA256SUMS"), sums(&plugins().join(folder))?)?;
    }
    Ok(())
}

/// Builds all components and compares them with the committed ones.
pub(crate) fn check() -> Result<()> {
    for folder in ["dist", "fixtures/dist"] {
        let folder = plugins().join(folder);
        if fs::read_to_string(folder.join("SHA256SUMS"))? != sums(&folder)? {
            bail!("{} does not fit its SHA256SUMS; run `cargo xtask components`", folder.display());
        }
    }
    let library = match library() {
        Ok(library) => library,
        Err(error) => {
            eprintln!(
                "components were NOT rebuilt: the standard library's source is not to be had here: {error:#}"
            );
            return Ok(());
        }
    };
    let built = compile(&library)?;
    for (crate_name, file) in COMPONENTS {
        let committed = fs::read(plugins().join(file))?;
        if fs::read(built.join(format!("{crate_name}.wasm")))? != committed {
            bail!("plugins/{file} is not what its source gives; run `cargo xtask components` and commit it");
        }
    }
    Ok(())
}

/// Tests, formatting and clippy of the guests' workspace.
pub(crate) fn test() -> Result<()> {
    run(guests().args(["fmt", "--all", "--check"]))?;
    // With a target and the default profile, like the example below: so all three use the same procedural macros.
    let target = ["--target", &host()?];
    let lint = ["--workspace", "--all-targets", "--", "-D", "warnings"];
    run(guests().args(["clippy", "--quiet"]).args(target).args(lint))?;
    run(guests().args(["test", "--quiet"]).args(target))?;
    // A project of its own, as a user has one.
    let example = root().join("examples/plugins/consensus-rust");
    run(in_folder(&example).args(["check", "--quiet"]).args(target))
}

/// This machine's target.
fn host() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc has no host")
}

fn plugins() -> PathBuf {
    root().join("plugins")
}

/// The standard library's source.
fn library() -> Result<PathBuf> {
    rust_src::library(&plugins().join("target/rust-src"))
}

/// Cargo in the guests' workspace.
fn guests() -> Command {
    in_folder(&plugins())
}

/// Cargo for guests in a `folder`, with the guests' own target folder.
fn in_folder(folder: &Path) -> Command {
    let mut cargo = cargo();
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", plugins().join("target"));
    cargo
}

/// Compiles for WebAssembly; returns the folder of the components. The toolchain's own
/// `wasm-component-ld` makes cargo's output a component. Paths of this machine stay out of it.
fn compile(library: &Path) -> Result<PathBuf> {
    let host = host()?;
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let bin = PathBuf::from(sysroot).join("lib/rustlib").join(host).join("bin");
    let path = std::env::var("PATH").unwrap_or_default();
    run(guests()
        .args(["build", "--quiet", "--release", "--workspace", "--lib", "--target", TARGET])
        .args(["-Z", "build-std=std,panic_abort", "-Z", "trim-paths"])
        .env("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all")
        // Building the standard library is not stable; nothing else that is not is used.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", library)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", bin.join("wasm-component-ld"))
        .env("PATH", format!("{}:{path}", bin.join("gcc-ld").display())))?;
    Ok(plugins().join("target").join(TARGET).join("release"))
}

/// The content of a folder's SHA256SUMS.
fn sums(folder: &Path) -> Result<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?.flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".wasm") {
            let digest: String =
                Sha256::digest(fs::read(entry.path())?).iter().map(|b| format!("{b:02x}")).collect();
            lines.push(format!("{digest}  {name}\n"));
        }
    }
    lines.sort_by(|a, b| a[64..].cmp(&b[64..]));
    Ok(lines.concat())
}
