//! The official `openai` packages for Python and JavaScript, against the real binary.

use std::process::Command;

use crate::support::{Server, alone, model, packages, quick, root, run, smollm2};

const PYTHON: &str = "openai==3.57.0";
const JAVASCRIPT: &str = "openai@7.57.0";

fn script() -> String {
    let tools = if quick() {
        String::new()
    } else {
        let path = model("qwen2.5-coder-0.5b-instruct.gguf");
        format!("tools = tw.model {{ path = \"{}\", context = 1024, slots = 2 }},", path.display())
    };
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "smollm2", context = 1024 }}
return tw.serve {{ models = {{
  plain = target, fast = tw.speculation {{ target = target, draft = tw.lookup {{}} }}, {tools}
}} }}"#,
        smollm2().display()
    )
}

#[test]
#[ignore = "needs pip"]
fn the_python_package_works() {
    let _turn = alone();
    let packages = packages(&format!("python-{PYTHON}"), |folder| {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYTHON, "--target"];
        run(Command::new("python3").args(pip).arg(folder));
    });
    let server = Server::start(&script());
    let tools = if quick() { "none" } else { "tools" };
    run(Command::new("python3")
        .arg(root().join("tests/clients/check.py"))
        .args([&server.url("/v1"), tools])
        .env("PYTHONPATH", packages));
}

#[test]
#[ignore = "needs npm"]
fn the_javascript_package_works() {
    let _turn = alone();
    let packages = packages(&format!("javascript-{JAVASCRIPT}"), |folder| {
        let install = ["install", "--silent", "--no-audit", "--no-fund", JAVASCRIPT];
        run(Command::new("npm").args(install).current_dir(folder));
    });
    // Modules are looked for beside the program.
    let program = packages.join("check.mjs");
    std::fs::copy(root().join("tests/clients/check.mjs"), &program).unwrap();
    let server = Server::start(&script());
    run(Command::new("node").arg(program).arg(server.url("/v1")));
}
