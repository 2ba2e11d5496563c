//! Nodes: a model on a node gives the same tokens as on this machine.
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tightwad_netlab::Proxy;

use crate::support::{
    BINARY, Node, PROMPTS, Process, Server, new_machine, one_core, set_environment, small_drafter,
    small_model, smollm2, tightwad,
};

fn sampling_settings() -> [Value; 2] {
    [json!({"temperature": 0}), json!({"temperature": 0.8, "top_p": 0.95, "seed": 77})]
}

/// Serves the small model of this machine, the same model of a node, and every stack of both. Two stacks draft a fixed
/// length: on a slow machine the controller of the other stacks may find that no draft pays.
fn script(node_url: &str) -> String {
    format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{}", name = "here", context = 1024, threads = 1 }}
local away = tw.node {{ url = "{node_url}", model = "smollm2" }}
local small = tw.node {{ url = "{node_url}", model = "q2" }}
return tw.serve {{ models = {{
  here = here,
  away = away,
  target = tw.speculation {{ target = away, drafters = tw.lookup {{}} }},
  drafter = tw.speculation {{ target = here, drafters = small }},
  both = tw.speculation {{ target = away, drafters = {{ tw.lookup {{}}, small }}, settings = {{ fixed_draft = 4 }} }},
  serial = tw.speculation {{ target = away, drafters = here, overlap = false, settings = {{ fixed_draft = 4 }} }},
  overlapping = tw.speculation {{ target = away, drafters = here }},
}} }}"#,
        small_model().display()
    )
}

const STACKS: [&str; 6] = ["away", "target", "drafter", "both", "serial", "overlapping"];

#[tokio::test]
async fn node_returns_the_same_tokens_as_the_host() {
    let _permit = one_core();
    let node = Node::start(
        &[("smollm2", &small_model()), ("q2", &small_drafter())],
        &["--context", "1024", "--threads", "1"],
    );
    let server = Server::start(&script(&node.url()));
    let mut accepted = 0;
    for settings in sampling_settings() {
        for prompt in &PROMPTS[..4] {
            let (expected, _) = server.ask("here", prompt, settings.clone()).await;
            for model in STACKS {
                let (text, report) = server.ask(model, prompt, settings.clone()).await;
                assert_eq!(text, expected, "{model}, {settings}, {prompt}: {report}");
                assert_eq!(report["exact"], true);
                assert!(report["fallback"].is_null(), "{report}");
                accepted += report["accepted"].as_u64().unwrap();
            }
        }
    }
    assert!(accepted > 0, "no draft was ever accepted");
    // The node closes all sessions soon.
    let client = tightwad_net::machine_client().build().unwrap();
    for _ in 0..100 {
        let facts: Value =
            client.get(format!("{}/v1/node", node.url())).send().await.unwrap().json().await.unwrap();
        if facts["sessions"] == 0 && facts["models"][0]["active"] == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the node still has open sessions");
}

#[tokio::test]
async fn node_honors_schemas_penalties_logprobs_and_concurrency() {
    let _permit = one_core();
    let node = Node::start(
        &[("smollm2", &small_model()), ("q2", &small_drafter())],
        &["--context", "1024", "--threads", "1"],
    );
    let server = Server::start(&script(&node.url()));
    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"], "additionalProperties": false});
    let cases = [
        json!({"temperature": 0, "frequency_penalty": 1.2, "repeat_penalty": 1.1}),
        json!({"temperature": 0.7, "response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}}),
        json!({"temperature": 0.9, "top_k": 20, "logit_bias": {"28": -100, "30": 5}, "stop": ["Paris is"]}),
    ];
    for settings in cases {
        let (expected, _) = server.ask("here", "Describe Paris as JSON.", settings.clone()).await;
        let models = ["away", "target", "drafter", "both"];
        let answers = models.map(|model| server.ask(model, "Describe Paris as JSON.", settings.clone()));
        for (text, report) in join_all(answers).await {
            assert_eq!(text, expected, "{settings}: {report}");
        }
    }
    let logprobs_request = |model: &str| {
        json!({"model": model, "messages": [{"role": "user", "content": PROMPTS[3]}], "max_tokens": 12,
               "temperature": 0, "logprobs": true, "top_logprobs": 3})
    };
    let (_, expected) = server.post("/v1/chat/completions", &logprobs_request("here")).await;
    let (_, away) = server.post("/v1/chat/completions", &logprobs_request("target")).await;
    assert_eq!(expected["choices"][0]["logprobs"], away["choices"][0]["logprobs"]);
    assert!(expected["choices"][0]["logprobs"]["content"].as_array().unwrap().len() > 5);
    // A request that the node cannot serve is a client error.
    let too_long = json!({"model": "away", "messages": [{"role": "user", "content": "word ".repeat(3000)}]});
    let (status, answer) = server.post("/v1/chat/completions", &too_long).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
}

/// Two machines in network namespaces, with a delayed link between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and iproute2"]
async fn node_behind_delays_returns_the_same_tokens_in_few_bytes() {
    let _permit = one_core();
    let (host, lender) = (new_machine(), new_machine());
    let node_address = SocketAddr::new(lender.address().into(), 7710);
    let mut command = lender.command(BINARY);
    set_environment(&mut command).args(["node", "--no-announce", "--token", "t", "--context", "1024"]);
    command.args(["--listen", &node_address.to_string(), "--threads", "1"]);
    command.arg("--model").arg(format!("smollm2={}", small_model().display()));
    let node = Process::start(&mut command);
    let link = Proxy::start(SocketAddr::new(host.gateway().into(), 0), node_address).await.unwrap();
    let script = format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{}", name = "here", context = 1024, threads = 1 }}
local away = tw.node {{ url = "{}", token = "t" }}
return tw.serve {{ token = "t", models = {{
  here = here, away = away,
  lookup = tw.speculation {{ target = away, drafters = tw.lookup {{}} }},
  overlapping = tw.speculation {{ target = away, drafters = here }},
}} }}"#,
        small_model().display(),
        node.url_at(link.address())
    );
    let listen = SocketAddr::new(host.address().into(), 8088).to_string();
    let mut server = Server::start_command(host.command(BINARY), &listen, &script, &[]);
    let headers = [("authorization", "Bearer t")];
    let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let client = tightwad_net::machine_client().default_headers(headers.into_iter().collect());
    server.client = client.build().unwrap();
    for settings in sampling_settings() {
        let (expected, _) = server.ask("here", PROMPTS[1], settings.clone()).await;
        for delay in [0, 2, 10, 40] {
            link.faults().delay(Duration::from_millis(delay));
            for model in ["away", "lookup", "overlapping"] {
                let before = link.faults().bytes();
                let (text, report) = server.ask(model, PROMPTS[1], settings.clone()).await;
                assert_eq!(text, expected, "{model} at {delay} ms: {report}");
                let after = link.faults().bytes();
                let bytes = after.0 + after.1 - before.0 - before.1;
                println!("{model} at {delay} ms: {bytes} bytes for {} characters", text.len());
            }
        }
    }
    link.faults().delay(Duration::ZERO);
    let before = link.faults().bytes();
    let body = json!({"model": "lookup", "messages": [{"role": "user", "content": PROMPTS[1]}], "temperature": 0,
        "max_tokens": 200, "logit_bias": {"0": -100, "2": -100}});
    let (_, answer) = server.post("/v1/chat/completions", &body).await;
    let after = link.faults().bytes();
    let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap();
    let bytes_per_token = (after.0 + after.1 - before.0 - before.1) / tokens;
    assert!(bytes_per_token < 200, "{bytes_per_token} bytes a committed token: {}", answer["tightwad"]);
}

#[tokio::test]
async fn node_checks_its_token_and_bounds_sessions_and_bodies() {
    let _permit = one_core();
    let node = Node::start(
        &[("smollm2", &small_model())],
        &["--token", "secret", "--slots", "4", "--max-queue", "4"],
    );
    let client = tightwad_net::machine_client().build().unwrap();
    let url = |path: &str| format!("{}{path}", node.url());
    assert_eq!(client.get(url("/health")).send().await.unwrap().status(), 200);
    for path in ["/v1/node", "/v1/models", "/metrics"] {
        assert_eq!(client.get(url(path)).send().await.unwrap().status(), 401);
    }
    let refused = client.get(url("/v1/node")).bearer_auth("guess").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let check = |token: &str, model: &str| {
        let script = crate::support::Script::new(&format!(
            "local tw = require \"tightwad\"\nlocal a = tw.node {{ url = \"{}\"{token}{model} }}\nreturn tw.serve {{ models = {{ a = a }} }}",
            node.url()
        ));
        let output = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, error) = check(", token = \"guess\"", "");
    assert!(
        code == Some(1) && error.contains("script.lua:2") && error.contains("does not accept this token"),
        "{error}"
    );
    let (code, error) = check(", token = \"secret\"", ", model = \"big\"");
    assert!(code == Some(1) && error.contains("lends no model 'big'; it has: smollm2"), "{error}");
    let (code, error) = check(", token = \"secret\"", "");
    assert_eq!(code, Some(0), "{error}");

    // Without a token, the node does not listen for other machines.
    let arguments = ["node", "--listen", "0.0.0.0:0", "--model", &format!("a={}", small_model().display())];
    let output = tightwad(&arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("Set a token with --token"), "{error}");

    let too_large = client
        .post(url("/v1/node/sessions"))
        .bearer_auth("secret")
        .header("content-type", "application/json")
        .body(vec![b' '; 11 << 20]);
    assert_eq!(too_large.send().await.unwrap().status(), 413);
    for (path, body, status) in [
        ("/v1/node/sessions", "{", 400),
        (
            "/v1/node/sessions",
            r#"{"model": "gone", "role": "target", "request": {"id": "", "prompt": {"text": "a"}}}"#,
            404,
        ),
        (
            "/v1/node/sessions",
            r#"{"model": "smollm2", "role": "target", "request": {"id": "", "prompt": {"text": "a"}, "sampling": {"top_p": 7}}}"#,
            400,
        ),
        ("/v1/node/sessions/none/verify", r#"{"at": 1, "hash": "00"}"#, 409),
        ("/v1/node/sessions/none/verify", r#"{"at":1,"hash":"00","crc32":"12345678"}"#, 400),
    ] {
        let response = client
            .post(url(path))
            .bearer_auth("secret")
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        let (found_status, text) = (response.status().as_u16(), response.text().await.unwrap());
        assert_eq!(found_status, status, "{path} {body}: {text}");
        assert!(text.contains("\"error\""), "{text}");
    }

    // One client opens 300 sessions and closes no session.
    let open =
        json!({"model": "smollm2", "role": "target", "request": {"id": "x", "prompt": {"text": "Once"}}});
    let opening =
        (0..300).map(|_| client.post(url("/v1/node/sessions")).bearer_auth("secret").json(&open).send());
    let mut counts = std::collections::BTreeMap::<u16, usize>::new();
    let responses = tokio::time::timeout(Duration::from_secs(60), join_all(opening)).await.unwrap();
    for response in responses {
        *counts.entry(response.unwrap().status().as_u16()).or_default() += 1;
    }
    println!("300 openings: {counts:?}");
    assert!(counts[&429] >= 268 && counts[&200] >= 4 && counts.len() == 2, "{counts:?}");
    // Another request still succeeds.
    let request = client.post(url("/v1/chat/completions")).bearer_auth("secret");
    let body = json!({"model": "smollm2", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4});
    let response = request.json(&body).timeout(Duration::from_secs(60)).send().await.unwrap();
    assert_eq!(response.status(), 200, "idle sessions do not make room");
}

/// Follows `host/book/src/protocols/node.md` by hand, with only HTTP and JSON.
#[tokio::test]
async fn node_protocol_works_with_plain_http_and_json() {
    let _permit = one_core();
    let node = Node::start(&[("smollm2", &smollm2())], &["--context", "512"]);
    let client = tightwad_net::machine_client().build().unwrap();
    let post = async |path: &str, body: Value| -> (u16, Value) {
        let response = client.post(format!("{}{path}", node.url())).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    };
    let request = json!({"id": "1", "prompt": {"text": "The capital of France is"}, "sampling": {"temperature": 0.0}, "max_tokens": 20});
    let (_, opened) =
        post("/v1/node/sessions", json!({"model": "smollm2", "role": "target", "request": request})).await;
    let session = opened["session"].as_str().unwrap();
    let tokens: Vec<u32> = serde_json::from_value(opened["tokens"].clone()).unwrap();
    let hash = tightwad_node::TokenHash::new(&tokens);
    let base = json!({"at": tokens.len(), "hash": hash});
    let mut call = base.clone();
    call["draft"] = json!([1, 2, 3]);
    let path = format!("/v1/node/sessions/{session}/verify");
    let (status, step) = post(&path, call.clone()).await;
    assert_eq!(status, 200, "{step}");
    assert_eq!(step["tokens"][0][1], " Paris");
    // A repeated call gets the same step. A call that does not continue the session gets 409.
    let (_, repeated) = post(&path, call.clone()).await;
    assert_eq!(repeated, step);
    call["draft"] = json!([7]);
    let (status, refused) = post(&path, call).await;
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("stale_session")));
    // A tree: the second path is the right one.
    let committed: Vec<u32> =
        step["tokens"].as_array().unwrap().iter().map(|token| token[0].as_u64().unwrap() as u32).collect();
    let (_, tokenized) = post("/v1/node/tokenize", json!({"model": "smollm2", "text": ". The"})).await;
    let right: Vec<u32> = serde_json::from_value(tokenized["tokens"].clone()).unwrap();
    let mut hash = hash;
    hash.extend(&committed);
    let call = json!({"at": tokens.len() + committed.len(), "hash": hash,
        "draft": [99, right[0], right[1]], "parents": [-1, -1, 1]});
    let (status, step) = post(&path, call).await;
    assert_eq!(status, 200, "{step}");
    assert!(step["accepted"].as_u64().unwrap() >= 1, "{step}");
    let score = json!({"model": "smollm2", "request": request, "answer": " Paris. It is green"});
    let (_, scores) = post("/v1/node/score", score).await;
    let scores = scores["tokens"].as_array().unwrap();
    assert_eq!((scores[0]["text"].as_str(), scores[0]["rank"].as_u64()), (Some(" Paris"), Some(0)));
    assert!(scores.last().unwrap()["rank"].as_u64().unwrap() > 0);
    let closed = client.delete(format!("{}/v1/node/sessions/{session}", node.url())).send().await.unwrap();
    assert_eq!(closed.status(), 204);
}

#[tokio::test]
async fn doctor_finds_nodes_and_names_the_failure() {
    let _permit = one_core();
    let mut command = Command::new(BINARY);
    set_environment(&mut command).args(["node", "--listen", "127.0.0.1:0"]);
    command.arg("--model").arg(format!("smollm2={}", smollm2().display()));
    let node = Process::start(&mut command);
    let output =
        tightwad(&["doctor", "--node", &format!("http://{}", node.address), "--discovery-time", "2"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("ok    node") && text.contains("lends smollm2 (llama 135M Q4_1"), "{text}");
    let output = tightwad(&["doctor", "--discovery-time", "3"]);
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let script = crate::support::Script::new(
        "local tw = require \"tightwad\"\nlocal a = tw.node { url = \"http://127.0.0.1:1\" }",
    );
    let output =
        tightwad(&["doctor", &script.path().display().to_string(), "--discovery-time", "0.2", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let findings: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failure = findings.iter().find(|finding| finding["verdict"] == "fail").unwrap();
    let detail = failure["detail"].as_str().unwrap();
    assert!(
        detail.contains("script.lua:2") && detail.contains("is `tightwad node` running there"),
        "{detail}"
    );
}
