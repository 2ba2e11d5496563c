//! The official `openai` packages for Python and JavaScript, against the real binary.

use std::path::Path;
use std::process::Command;

use crate::support::{Server, alone, model, packages, plain_and_fast, python, root, run, share, smollm2};

const PYTHON: &str = "openai==3.57.0";
const JAVASCRIPT: &str = "openai@7.57.0";

/// Runs a program of `tests/clients` with the Python package.
fn checked(program: &str, arguments: &[&str]) {
    let packages = python(&format!("python-{PYTHON}"), &[PYTHON]);
    let program = Path::new("tests/clients").join(program);
    run(Command::new("python3").arg(root().join(program)).args(arguments).env("PYTHONPATH", packages));
}

#[test]
#[ignore = "needs pip"]
fn the_python_package_works() {
    let _turn = share();
    let server = Server::start(&plain_and_fast(&smollm2(), ""));
    checked("check.py", &[&server.url("/v1")]);
}

#[test]
#[ignore = "needs the large models; needs pip"]
fn the_python_package_calls_tools() {
    let _turn = alone();
    let server = Server::start(&format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ tools = tw.model {{ path = \"{}\", context = 1024, slots = 2 }} }} }}",
        model("qwen2.5-coder-0.5b-instruct.gguf").display()
    ));
    checked("check_tools.py", &[&server.url("/v1"), "tools"]);
}

#[test]
#[ignore = "needs npm"]
fn the_javascript_package_works() {
    let packages = packages(&format!("javascript-{JAVASCRIPT}"), |folder| {
        let install = ["install", "--silent", "--no-audit", "--no-fund", JAVASCRIPT];
        run(Command::new("npm").args(install).current_dir(folder));
    });
    // Modules are looked for beside the program.
    let program = packages.join("check.mjs");
    std::fs::copy(root().join("tests/clients/check.mjs"), &program).unwrap();
    let _turn = share();
    let server = Server::start(&plain_and_fast(&smollm2(), ""));
    run(Command::new("node").arg(program).arg(server.url("/v1")));
}
