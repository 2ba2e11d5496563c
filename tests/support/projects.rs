//! Projects as `tightwad plugin new` writes them, and what builds them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{packages, root, run, tightwad};

const COMPONENTIZE: &str = "componentize-py==0.25.1";

/// A component that was built for tests.
pub fn fixture(name: &str) -> PathBuf {
    root().join(format!("plugins/fixtures/dist/{name}.wasm"))
}

/// What `tightwad` printed, and whether it ended well.
pub fn said(arguments: &[&str]) -> (bool, String) {
    let done = tightwad(arguments);
    let text = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// A project as `tightwad plugin new` writes it, in a folder of its name.
pub fn project(kind: &str, name: &str, language: &str) -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join(name);
    let shown = folder.display().to_string();
    let (made, text) = said(&["plugin", "new", kind, name, "--lang", language, "--path", &shown]);
    assert!(made && text.contains("build it:"), "{text}");
    (place, folder)
}

/// Packages of Python, in a folder of their own.
pub fn python(folder: &str, wanted: &[&str]) -> PathBuf {
    packages(folder, |folder| {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(Command::new("python3").args(pip).args(wanted).arg("--target").arg(folder));
    })
}

/// Builds a project in Python as `out`; `more` are arguments of the compiler.
pub fn componentized(folder: &Path, world: &str, more: &[&str], out: &str) -> PathBuf {
    let packages = python(&format!("python-{COMPONENTIZE}"), &[COMPONENTIZE]);
    let mut command = Command::new(packages.join("bin/componentize-py"));
    command.current_dir(folder).env("PYTHONPATH", &packages);
    run(command.args(["-q", "-d", "wit", "-w", world, "componentize"]).args(more).args(["app", "-o", out]));
    folder.join(out)
}

/// Builds a project in JavaScript.
pub fn bundled(folder: &Path) -> PathBuf {
    let install = ["install", "--silent", "--no-audit", "--no-fund"];
    run(Command::new("npm").args(install).current_dir(folder));
    run(Command::new("npm").args(["run", "build", "--silent"]).current_dir(folder));
    folder.join(named(folder)).with_extension("wasm")
}

/// Builds a project in Rust, with the standard library that the built-in plugins are built with.
pub fn compiled(folder: &Path) -> PathBuf {
    let version = Command::new("rustc").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap().split(' ').nth(1).unwrap().to_owned();
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap().stdout;
    let installed =
        PathBuf::from(String::from_utf8(sysroot).unwrap().trim()).join("lib/rustlib/src/rust/library");
    let unpacked = root().join(format!("plugins/target/rust-src/usr/src/rustc-{version}/library"));
    let library = [installed, unpacked].into_iter().find(|library| library.join("Cargo.lock").exists());
    let target = root().join("plugins/target/new");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(folder).args(["build", "--quiet", "--release"]);
    cargo.env("CARGO_TARGET_DIR", &target).env_remove("RUSTFLAGS");
    if let Some(library) = library {
        let std = library.canonicalize().unwrap();
        cargo.env("RUSTC_BOOTSTRAP", "1").env("__CARGO_TESTS_ONLY_SRC_ROOT", std);
        cargo.args(["-Z", "build-std=std,panic_abort"]);
    }
    run(&mut cargo);
    target.join(format!("wasm32-unknown-unknown/release/{}.wasm", named(folder).replace('-', "_")))
}

/// The name of a project.
fn named(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

/// A file that comes whole or not at all, as a careful copy makes it.
pub fn put(file: &Path, place: &Path) {
    let half = place.with_extension("part");
    fs::copy(file, &half).unwrap();
    fs::rename(half, place).unwrap();
}
