//! Plugin projects that `tightwad plugin new` writes, and the tools that build them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{fill_once, repository_root, run, tightwad};

const COMPONENTIZE: &str = "componentize-py==0.25.1";

/// The file of a component that is built for tests.
pub fn fixture(name: &str) -> PathBuf {
    repository_root().join(format!("plugins/fixtures/dist/{name}.wasm"))
}

/// Runs `tightwad`. Returns whether the run succeeded, and standard output with standard error.
pub fn output_of(arguments: &[&str]) -> (bool, String) {
    let output = tightwad(arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Writes a project with `tightwad plugin new`. Returns the project's folder, and the temporary folder around it.
pub fn new_project(kind: &str, name: &str, language: &str) -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join(name);
    let path = folder.display().to_string();
    let (ok, text) = output_of(&["plugin", "new", kind, name, "--lang", language, "--output", &path]);
    assert!(ok && text.contains("build it:"), "{text}");
    (parent, folder)
}

/// Installs Python packages once. Returns their folder, which has the name `folder`.
pub fn python_packages(folder: &str, packages: &[&str]) -> PathBuf {
    fill_once(folder, |folder| {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(Command::new("python3").args(pip).args(packages).arg("--target").arg(folder));
    })
}

/// Builds a Python project as the component `output`, with further `options` for the compiler.
pub fn build_python(folder: &Path, world: &str, options: &[&str], output: &str) -> PathBuf {
    let packages = python_packages(&format!("python-{COMPONENTIZE}"), &[COMPONENTIZE]);
    let mut command = Command::new(packages.join("bin/componentize-py"));
    command.current_dir(folder).env("PYTHONPATH", &packages);
    command.args(["-q", "-d", "wit", "-w", world, "componentize"]).args(options);
    run(command.args(["app", "-o", output]));
    folder.join(output)
}

/// Builds a JavaScript project.
pub fn build_javascript(folder: &Path) -> PathBuf {
    let install = ["install", "--silent", "--no-audit", "--no-fund"];
    run(Command::new("npm").args(install).current_dir(folder));
    run(Command::new("npm").args(["run", "build", "--silent"]).current_dir(folder));
    folder.join(project_name(folder)).with_extension("wasm")
}

/// Builds a Rust project, with the standard library of the built-in plugins.
pub fn build_rust(folder: &Path) -> PathBuf {
    let version = Command::new("rustc").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap().split(' ').nth(1).unwrap().to_owned();
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap().stdout;
    let installed =
        PathBuf::from(String::from_utf8(sysroot).unwrap().trim()).join("lib/rustlib/src/rust/library");
    let unpacked = repository_root().join(format!("plugins/target/rust-src/usr/src/rustc-{version}/library"));
    let library = [installed, unpacked].into_iter().find(|library| library.join("Cargo.lock").exists());
    let target = repository_root().join("plugins/target/new");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(folder).args(["build", "--quiet", "--release"]);
    cargo.env("CARGO_TARGET_DIR", &target).env_remove("RUSTFLAGS");
    if let Some(library) = library {
        let std = library.canonicalize().unwrap();
        cargo.env("RUSTC_BOOTSTRAP", "1").env("__CARGO_TESTS_ONLY_SRC_ROOT", std);
        cargo.args(["-Z", "build-std=std,panic_abort"]);
    }
    run(&mut cargo);
    target.join(format!("wasm32-unknown-unknown/release/{}.wasm", project_name(folder).replace('-', "_")))
}

/// The name of the project in `folder`.
fn project_name(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

/// Copies a file so that `target` is never a partial copy.
pub fn copy_atomically(source: &Path, target: &Path) {
    let partial = target.with_extension("part");
    fs::copy(source, &partial).unwrap();
    fs::rename(partial, target).unwrap();
}
