//! API keys of the real binary: from `tightwad key new` over a restart to a reload.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{BINARY, Process, Script, one_core, set_environment, small_model, tightwad};

/// A new key of `name`, and its line for a script.
fn new_key(name: &str) -> (String, String) {
    let output = tightwad(&["key", "new", name]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (key, line) = text.trim_end().split_once('\n').unwrap();
    assert!(!line.contains(key));
    (key.to_owned(), line.to_owned())
}

fn start(script: &Script) -> Process {
    let mut command = Command::new(BINARY);
    command.arg("run").arg(script.path());
    set_environment(&mut command).env("XDG_STATE_HOME", script.folder());
    Process::start(&mut command)
}

/// Asks for two tokens. Returns the status.
async fn ask(host: &Process, key: &str) -> u16 {
    let client = tightwad_net::machine_client().build().unwrap();
    let body = json!({"model": "m", "prompt": "Hi", "max_tokens": 2});
    let request = client.post(format!("http://{}/v1/completions", host.address)).bearer_auth(key).json(&body);
    request.send().await.unwrap().status().as_u16()
}

async fn tokens_today(host: &Process, key: &str) -> Value {
    let client = tightwad_net::machine_client().build().unwrap();
    let request = client.get(format!("http://{}/v1/tightwad/status", host.address)).bearer_auth(key);
    let status: Value = request.send().await.unwrap().json().await.unwrap();
    let keys = status["keys"].as_array().unwrap();
    keys.iter().find(|key| key["name"] == "alice").unwrap()["tokens_today"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn key_works_and_its_usage_survives_a_restart() {
    let _permit = one_core();
    let ((alice, alice_line), (admin, admin_line)) = (new_key("alice"), new_key("admin"));
    let admin_line = admin_line.replace("{ \"chat\" }", "{ \"observe\" }");
    let text = |lines: &str| {
        format!(
            "local tw = require \"tightwad\"\nlocal m = tw.model {{ path = \"{}\", context = 256, threads = 1 }}\n\
             return tw.serve {{ listen = \"127.0.0.1:0\", models = {{ m = m }}, keys = {{\n{lines}\n}} }}",
            small_model().display()
        )
    };
    let script = Script::new(&text(&format!("{alice_line}\n{admin_line}")));
    let mut host = start(&script);
    assert_eq!(
        (ask(&host, "wrong").await, ask(&host, &admin).await, ask(&host, &alice).await),
        (401, 403, 200)
    );
    let used = tokens_today(&host, &admin).await;
    assert!(used.as_u64().unwrap() > 2, "{used}");
    host.signal("-TERM");
    assert!(host.wait_for_exit(Duration::from_secs(60)).unwrap().success());
    let log = host.log_text();
    assert!(!log.contains(&alice) && !log.contains(&admin), "{log}");

    let host = start(&script);
    assert_eq!(tokens_today(&host, &admin).await, used);
    script.write(&text(&admin_line));
    host.wait_for_log("`token` or `keys` have changed", 60).await;
    assert_eq!(ask(&host, &alice).await, 401);
}
