//! Tokens that are empty, or that an HTTP header cannot carry.

use std::process::{Command, Output};

use crate::support::{BINARY, Script, set_environment, small_model};

/// The environment variable of the token that `arguments` start a server with.
fn token_variable(arguments: &[&str]) -> &'static str {
    if arguments.first() == Some(&"swarm") { "TIGHTWAD_SWARM_TOKEN" } else { "TIGHTWAD_TOKEN" }
}

/// Runs `tightwad` with `arguments`, and with `token` in the environment. Kills a server that starts after 30 seconds.
fn run(arguments: &[&str], token: Option<&str>) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "30"]).arg(BINARY).args(arguments);
    set_environment(&mut command);
    if let Some(token) = token {
        command.env(token_variable(arguments), token);
    }
    command.output().unwrap()
}

/// Checks that a start fails with an error that contains `message_part`.
fn check_refusal(arguments: &[&str], token: Option<&str>, message_part: &str) {
    let output = run(arguments, token);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?} {token:?} started: {error}");
    assert!(error.contains(message_part), "{arguments:?} {token:?}: {error}");
}

/// A script with further `fields` of `tw.serve`.
fn script(fields: &str) -> Script {
    Script::new(&format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ {fields}, models = {{ m = function() return \"x\" end }} }}"
    ))
}

#[test]
fn empty_token_stops_every_server_from_starting() {
    let model = format!("m={}", small_model().display());
    let (file, open_script) = (small_model().display().to_string(), script("listen = \"0.0.0.0:0\""));
    let open_script = open_script.path().display().to_string();
    let servers: [Vec<&str>; 4] = [
        vec!["run", &open_script],
        vec!["node", "--no-announce", "--listen", "0.0.0.0:0", "--model", &model],
        vec!["worker", "--listen", "0.0.0.0:0"],
        vec!["swarm", "seed", "--no-announce", "--listen", "0.0.0.0:0", &file],
    ];
    for server in &servers {
        for blank in ["", " ", "\t"] {
            let variable = token_variable(server);
            check_refusal(server, Some(blank), &format!("{variable}: the token is empty"));
            check_refusal(&[server.as_slice(), &["--token", blank]].concat(), None, "the token is empty");
        }
        check_refusal(server, None, "Set a token");
    }
}

#[test]
fn empty_token_in_a_script_is_refused_at_its_line() {
    for blank in ["", "  "] {
        let script = script(&format!("listen = \"0.0.0.0:0\", token = \"{blank}\""));
        check_refusal(
            &["run", &script.path().display().to_string()],
            None,
            "script.lua: 'token' in tw.serve: the token is empty",
        );
    }
    for call in [
        "tw.node { url = \"http://127.0.0.1:1\", token = \"\" }",
        "tw.pooling { model = \"x.gguf\", workers = { \"http://127.0.0.1:1\" }, token = \"\" }",
        "tw.pooling { model = \"x.gguf\", workers = { { url = \"http://127.0.0.1:1\", token = \"\" } } }",
        "tw.model { swarm = \"name\", token = \"\" }",
    ] {
        let script = Script::new(&format!("local tw = require \"tightwad\"\n{call}"));
        check_refusal(
            &["run", &script.path().display().to_string(), "--check"],
            None,
            "script.lua:2: 'token' in",
        );
    }
    let call = "tw.openai { url = \"http://127.0.0.1:1\", api_key = \"\" }";
    let script = Script::new(&format!("local tw = require \"tightwad\"\n{call}"));
    check_refusal(
        &["run", &script.path().display().to_string(), "--check"],
        None,
        "script.lua:2: 'api_key' in",
    );
}

#[test]
fn unsendable_token_is_refused_without_printing_it() {
    let model = format!("m={}", small_model().display());
    for secret in ["open sesame", "schlüssel"] {
        let arguments =
            ["node", "--no-announce", "--listen", "127.0.0.1:0", "--model", &model, "--token", secret];
        let output = run(&arguments, None);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("--token") && error.contains("white space"), "{error}");
        assert!(!error.contains(secret), "{error}");
    }
}
