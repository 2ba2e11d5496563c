//! The official `openai` packages for Python and JavaScript, against the real binary.

use std::path::Path;
use std::process::Command;

use crate::support::{
    Server, all_cores, downloaded_model, fill_once, one_core, plain_and_fast_script, python_packages,
    repository_root, run, smollm2,
};

const PYTHON_PACKAGE: &str = "openai==3.57.0";
const JAVASCRIPT_PACKAGE: &str = "openai@7.57.0";

/// Runs a program of `tests/clients` with the Python package.
fn run_python_client(program: &str, arguments: &[&str]) {
    let packages = python_packages(&format!("python-{PYTHON_PACKAGE}"), &[PYTHON_PACKAGE]);
    let program = Path::new("tests/clients").join(program);
    run(Command::new("python3")
        .arg(repository_root().join(program))
        .args(arguments)
        .env("PYTHONPATH", packages));
}

#[test]
#[ignore = "needs pip"]
fn openai_python_package_works_with_the_server() {
    let _permit = one_core();
    let server = Server::start(&plain_and_fast_script(&smollm2(), ""));
    run_python_client("check.py", &[&server.url("/v1")]);
}

#[test]
#[ignore = "needs the large models; needs pip"]
fn openai_python_package_calls_tools() {
    let _permit = all_cores();
    let server = Server::start(&format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ tools = tw.model {{ path = \"{}\", context = 1024, slots = 2 }} }} }}",
        downloaded_model("qwen2.5-coder-0.5b-instruct.gguf").display()
    ));
    run_python_client("check_tools.py", &[&server.url("/v1"), "tools"]);
}

#[test]
#[ignore = "needs npm"]
fn openai_javascript_package_works_with_the_server() {
    let packages = fill_once(&format!("javascript-{JAVASCRIPT_PACKAGE}"), |folder| {
        let install = ["install", "--silent", "--no-audit", "--no-fund", JAVASCRIPT_PACKAGE];
        run(Command::new("npm").args(install).current_dir(folder));
    });
    // Node searches for modules beside the program.
    let program = packages.join("check.mjs");
    std::fs::copy(repository_root().join("tests/clients/check.mjs"), &program).unwrap();
    let _permit = one_core();
    let server = Server::start(&plain_and_fast_script(&smollm2(), ""));
    run(Command::new("node").arg(program).arg(server.url("/v1")));
}
