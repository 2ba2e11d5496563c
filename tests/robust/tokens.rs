//! Tokens that are empty or cannot be sent.

use std::process::{Command, Output};

use crate::support::{BINARY, Script, environment, small};

/// Runs `tightwad` with `arguments`, and with `TIGHTWAD_TOKEN` where there is one. A server that starts is ended.
fn started(arguments: &[&str], variable: Option<&str>) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "30"]).arg(BINARY).args(arguments);
    environment(&mut command);
    if let Some(token) = variable {
        command.env("TIGHTWAD_TOKEN", token);
    }
    command.output().unwrap()
}

fn refused(arguments: &[&str], variable: Option<&str>, words: &str) {
    let done = started(arguments, variable);
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(matches!(done.status.code(), Some(1 | 2)), "{arguments:?} {variable:?} started: {error}");
    assert!(error.contains(words), "{arguments:?} {variable:?}: {error}");
}

fn script(more: &str) -> Script {
    Script::new(&format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ {more}, models = {{ m = function() return \"x\" end }} }}"
    ))
}

#[test]
fn an_empty_token_never_lets_everybody_in() {
    let model = format!("m={}", small().display());
    let (file, open) = (small().display().to_string(), script("listen = \"0.0.0.0:0\""));
    let open = open.path().display().to_string();
    let servers: [Vec<&str>; 4] = [
        vec!["run", &open],
        vec!["node", "--quiet", "--listen", "0.0.0.0:0", "--model", &model],
        vec!["worker", "--listen", "0.0.0.0:0"],
        vec!["swarm", "seed", "--quiet", "--listen", "0.0.0.0:0", &file],
    ];
    for server in &servers {
        for blank in ["", " ", "\t"] {
            refused(server, Some(blank), "TIGHTWAD_TOKEN: the token is empty");
            refused(&[server.as_slice(), &["--token", blank]].concat(), None, "the token is empty");
        }
        refused(server, None, "set a token");
    }
}

#[test]
fn an_empty_token_in_a_script_is_an_error_at_its_line() {
    for blank in ["", "  "] {
        let script = script(&format!("listen = \"0.0.0.0:0\", token = \"{blank}\""));
        refused(
            &["run", &script.path().display().to_string()],
            None,
            "script.lua: 'token' in tw.serve: the token is empty",
        );
    }
    for call in [
        "tw.node { url = \"http://127.0.0.1:1\", token = \"\" }",
        "tw.openai { url = \"http://127.0.0.1:1\", token = \"\" }",
        "tw.pooling { model = \"x.gguf\", workers = { \"http://127.0.0.1:1\" }, token = \"\" }",
        "tw.pooling { model = \"x.gguf\", workers = { { url = \"http://127.0.0.1:1\", token = \"\" } } }",
        "tw.model { swarm = \"name\", token = \"\" }",
    ] {
        let script = Script::new(&format!("local tw = require \"tightwad\"\n{call}"));
        refused(&["run", &script.path().display().to_string(), "--check"], None, "script.lua:2: 'token' in");
    }
}

#[test]
fn a_token_that_no_header_carries_is_refused_without_being_shown() {
    let model = format!("m={}", small().display());
    for secret in ["open sesame", "schlüssel"] {
        let arguments = ["node", "--quiet", "--listen", "127.0.0.1:0", "--model", &model, "--token", secret];
        let done = started(&arguments, None);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{error}");
        assert!(error.contains("--token") && error.contains("white space"), "{error}");
        assert!(!error.contains(secret), "{error}");
    }
}
