//! Builds the components: the built-in plugins and the test fixtures.
//!
//! The repository holds the built components, so the host builds without a guest toolchain. The check rebuilds them and
//! compares every byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::rust_src;
use crate::shell::{cargo, output, root, run};

/// Crates, and the component files below `plugins/` that a build of each makes.
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

/// Builds all components, and writes them below `plugins/`.
pub(crate) fn build() -> Result<()> {
    let built = compile(&library_source()?)?;
    for (crate_name, file) in COMPONENTS {
        let path = plugins_folder().join(file);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::copy(built.join(format!("{crate_name}.wasm")), &path)?;
    }
    for folder in ["dist", "fixtures/dist"] {
        fs::write(
            plugins_folder().join(folder).join("SHA256SUMS"),
            checksums(&plugins_folder().join(folder))?,
        )?;
    }
    Ok(())
}

/// Builds all components and compares them with the committed ones.
pub(crate) fn check() -> Result<()> {
    for folder in ["dist", "fixtures/dist"] {
        let folder = plugins_folder().join(folder);
        if fs::read_to_string(folder.join("SHA256SUMS"))? != checksums(&folder)? {
            bail!("{} differs from its SHA256SUMS. Run `cargo xtask components`.", folder.display());
        }
    }
    let library = match library_source() {
        Ok(library) => library,
        Err(error) => {
            eprintln!(
                "the components were not rebuilt, because this machine lacks the source of the standard library: {error:#}"
            );
            return Ok(());
        }
    };
    let built = compile(&library)?;
    for (crate_name, file) in COMPONENTS {
        let committed = fs::read(plugins_folder().join(file))?;
        if fs::read(built.join(format!("{crate_name}.wasm")))? != committed {
            bail!(
                "plugins/{file} differs from a build of its source. Run `cargo xtask components` and commit the file."
            );
        }
    }
    Ok(())
}

/// Checks the formatting of the guests' workspace, lints and tests it.
pub(crate) fn test() -> Result<()> {
    run(guest_cargo().args(["fmt", "--all", "--check"]))?;
    // The same target and profile as the example below, so that all three share the procedural macros.
    let target = ["--target", &host_triple()?];
    let lint = ["--workspace", "--all-targets", "--", "-D", "warnings"];
    run(guest_cargo().args(["clippy", "--quiet"]).args(target).args(lint))?;
    run(guest_cargo().args(["test", "--quiet"]).args(target))?;
    // A separate workspace, like a user's project.
    let example = root().join("examples/plugins/consensus-rust");
    run(cargo_in(&example).args(["check", "--quiet"]).args(target))
}

/// Target triple of this machine.
fn host_triple() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc reports no host triple")
}

fn plugins_folder() -> PathBuf {
    root().join("plugins")
}

/// The folder with the standard library's source.
fn library_source() -> Result<PathBuf> {
    rust_src::library(&plugins_folder().join("target/rust-src"))
}

/// Cargo in the guests' workspace.
fn guest_cargo() -> Command {
    cargo_in(&plugins_folder())
}

/// Cargo in `folder`, with the target folder of the guests' workspace.
fn cargo_in(folder: &Path) -> Command {
    let mut cargo = cargo();
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", plugins_folder().join("target"));
    cargo
}

/// Compiles for WebAssembly, and returns the folder of the components. The linker `wasm-component-ld` makes components.
/// The components contain no paths of this machine.
fn compile(library: &Path) -> Result<PathBuf> {
    let host = host_triple()?;
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let bin = PathBuf::from(sysroot).join("lib/rustlib").join(host).join("bin");
    let path = std::env::var("PATH").unwrap_or_default();
    run(guest_cargo()
        .args(["build", "--quiet", "--release", "--workspace", "--lib", "--target", TARGET])
        .args(["-Z", "build-std=std,panic_abort", "-Z", "trim-paths"])
        .env("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all")
        // `build-std` is unstable. The build uses no other unstable feature.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", library)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", bin.join("wasm-component-ld"))
        .env("PATH", format!("{}:{path}", bin.join("gcc-ld").display())))?;
    Ok(plugins_folder().join("target").join(TARGET).join("release"))
}

/// The content of a folder's SHA256SUMS.
fn checksums(folder: &Path) -> Result<String> {
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
