//! Workers and pools: access, error messages with remedies, swapping of models, and plans.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{PROMPTS, Script, Server, Worker, one_core, smollm2, smollm2_q2, tightwad};

#[tokio::test]
async fn pool_errors_name_the_remedy() {
    let _permit = one_core();
    let worker = Worker::start(&["--max-memory", "40M", "--token", "secret"]);
    let check = |workers: &str, fields: &str| {
        let script = Script::new(&format!(
            "local tw = require \"tightwad\"\nlocal p = tw.pooling {{ model = \"{}\", include_host = false, context = 512, slots = 2, workers = {{ {workers} }}{fields} }}\nreturn tw.serve {{ models = {{ p = p }} }}",
            smollm2().display()
        ));
        let output = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("script.lua:2"), "{error}");
        error
    };
    let own = format!("{{ url = \"{}\", token = \"secret\" }}", worker.url());
    let error = check(&own, "");
    assert!(error.contains("are missing") && error.contains("of 30 layers would fit"), "{error}");
    let error = check(&format!("\"{}\"", worker.url()), "");
    assert!(error.contains("does not accept this token"), "{error}");
    assert!(check("\"http://127.0.0.1:1\"", "").contains("`tightwad worker` runs there"));
    assert!(check("", "").contains("no machine can hold the layers"));
    assert!(
        check("\"nonsense\"", "")
            .contains("'url' must begin with tightwad://, http:// or https://, not 'nonsense'")
    );
    assert!(check(&own, ", wokers = {}").contains("did you mean 'workers'"));
    let twice = check(&format!("{own}, {own}"), "");
    assert!(twice.contains("appears twice"), "{twice}");

    // An HTTP server that is not a worker, a worker of another version, and a server of another protocol.
    let not_found = serve("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    assert!(check(&format!("\"http://{not_found}\""), "").contains("is not a worker (404"));
    let old_worker = serve(concat!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
        r#"{"tightwad":"0.0.9","protocol":1,"rpc":[6,1],"device":"CPU","gpu":false,"threads":2,"memory":1000000000,"free":1000000000,"memory_bandwidth":1,"cached":0,"pools":0}"#
    ));
    let error = check(&format!("\"http://{old_worker}\""), "");
    assert!(error.contains("0.0.9 with llama.cpp's RPC 6.1") && error.contains("update"), "{error}");
    let bare = serve("\x00\x01\x02 not HTTP");
    let error = check(&format!("\"http://{bare}\""), "");
    assert!(error.contains("not llama.cpp's own rpc-server"), "{error}");
}

/// llama.cpp supports sixteen workers.
#[test]
fn pool_refuses_seventeen_workers() {
    let _permit = one_core();
    let worker = serve(concat!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
        r#"{"tightwad":"0.1.0","protocol":1,"rpc":[7,0],"device":"CPU","gpu":false,"threads":2,"memory":1000000000,"free":1000000000,"memory_bandwidth":1000000000,"cached":0,"pools":0}"#
    ));
    let plan = |count: u8| {
        let mut arguments = vec!["pool".to_owned(), "plan".to_owned(), smollm2().display().to_string()];
        // All loopback addresses lead to the same worker.
        let address = |number: u8| format!("127.0.0.{}:{}", number + 1, worker.port());
        arguments.extend((0..count).flat_map(|number| ["--worker".to_owned(), address(number)]));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = tightwad(&arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(plan(16), (Some(0), String::new()));
    let (code, error) = plan(17);
    assert!(code == Some(1) && error.contains("at most 16 workers, not 17. Leave some out"), "{error}");
}

#[tokio::test]
async fn overridden_tensors_lie_on_another_machine_than_their_layer() {
    let _permit = one_core();
    let workers = [0, 1].map(|_| Worker::start(&["--max-memory", "90M", "--token", "t"]));
    let pool = |name: &str, pin: &str| {
        let lua_worker = |(index, worker): (usize, &Worker)| {
            format!("{{ url = \"{}\", token = \"t\", name = \"w{index}\" }}", worker.url())
        };
        let workers: Vec<String> = workers.iter().enumerate().map(lua_worker).collect();
        format!(
            "tw.pooling {{ model = \"{}\", name = \"{name}\", include_host = false, context = 512, slots = 2, load = \"on_demand\", workers = {{ {} }}, override_tensors = {{ {pin} }} }}",
            smollm2().display(),
            workers.join(", ")
        )
    };
    let script = format!(
        "local tw = require \"tightwad\"\nlocal here = tw.model {{ path = \"{}\", name = \"here\", context = 512, threads = 1 }}\nreturn tw.serve {{ models = {{ here = here, pinned = {}, wrong = {} }} }}",
        smollm2().display(),
        pool("pinned", "[\"blk.[0-9]+.ffn_down\"] = \"host\", [\"blk.0.ffn_up\"] = \"w1\""),
        pool("wrong", "ffn_down = \"w9\""),
    );
    let server = Server::start(&script);
    let (expected, _) = server.ask("here", PROMPTS[0], json!({})).await;
    let (pinned, _) = server.ask("pinned", PROMPTS[0], json!({})).await;
    assert_eq!(pinned, expected);
    let body = json!({"model": "wrong", "messages": [{"role": "user", "content": "hi"}]});
    let (status, answer) = server.post("/v1/chat/completions", &body).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 503 && message.contains("the worker 'w9', which has no layers"), "{message}");
}

/// Serves the same bytes to each request, on all loopback addresses.
fn serve(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = SocketAddr::new([127, 0, 0, 1].into(), listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = BufReader::new(connection.unwrap());
            std::thread::spawn(move || {
                read_request(&mut connection);
                let _ = connection.get_mut().write_all(answer.as_bytes());
            });
        }
    });
    address
}

/// Reads one request to the end of its body.
fn read_request(connection: &mut BufReader<TcpStream>) {
    let mut body_bytes = 0;
    let mut line = String::new();
    while connection.read_line(&mut line).is_ok_and(|read| read > 2) {
        if let Some(length) = line.to_lowercase().strip_prefix("content-length:") {
            body_bytes = length.trim().parse().unwrap();
        }
        line.clear();
    }
    let _ = std::io::copy(&mut connection.take(body_bytes), &mut std::io::sink());
}

#[tokio::test]
async fn worker_requires_its_token_and_allowed_addresses() {
    let _permit = one_core();
    let worker = Worker::start(&["--max-memory", "100M", "--token", "secret"]);
    let client = tightwad_net::machine_client().build().unwrap();
    let url = |path: &str| format!("{}{path}", worker.url());
    assert_eq!(client.get(url("/health")).send().await.unwrap().status(), 200);
    for path in ["/v1/worker", "/v1/worker/rpc"] {
        assert_eq!(client.get(url(path)).send().await.unwrap().status(), 401);
        assert_eq!(client.get(url(path)).bearer_auth("guess").send().await.unwrap().status(), 401);
    }
    let info: Value =
        client.get(url("/v1/worker")).bearer_auth("secret").send().await.unwrap().json().await.unwrap();
    assert_eq!((info["memory"].as_u64(), info["pools"].as_u64()), (Some(100 << 20), Some(0)));
    // A request without an upgrade to a tunnel.
    let plain = client.get(url("/v1/worker/rpc")).bearer_auth("secret").send().await.unwrap();
    assert_eq!(plain.status(), 400);
    // A worker without a token refuses to listen on other interfaces. A worker with a list refuses other addresses.
    let output = tightwad(&["worker", "--listen", "0.0.0.0:0"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Set a token"));
    let closed = Worker::start(&["--max-memory", "100M", "--allow", "10.99.0.0/16"]);
    let refused = client.get(format!("{}/v1/worker", closed.url())).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let output = tightwad(&["worker", "--allow", "somewhere"]);
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn pools_swap_models_while_the_host_runs() {
    let _permit = one_core();
    // The memory is enough for one of the two models.
    let worker = Worker::start(&["--max-memory", "170M", "--token", "t"]);
    let pool = |name: &str, path: &std::path::Path, fields: &str| {
        format!(
            "tw.pooling {{ model = \"{}\", name = \"{name}\", include_host = false, context = 512, slots = 2, workers = {{ {{ url = \"{}\", token = \"t\" }} }}, load = \"on_demand\"{fields} }}",
            path.display(),
            worker.url()
        )
    };
    let script = format!(
        "local tw = require \"tightwad\"\nlocal here = tw.model {{ path = \"{}\", name = \"here\", context = 512, threads = 1 }}\nreturn tw.serve {{ models = {{ here = here, one = {}, two = {} }} }}",
        smollm2().display(),
        pool("one", &smollm2(), ""),
        pool("two", &smollm2_q2(), ", idle_timeout = 2"),
    );
    let server = Server::start(&script);
    let state = async |name: &str| {
        let (_, text) = server.get("/v1/tightwad/status").await;
        let status: Value = serde_json::from_str(&text).unwrap();
        let models = status["models"].as_array().unwrap().clone();
        models.into_iter().find(|model| model["model"] == name).unwrap()["state"].as_str().unwrap().to_owned()
    };
    let command = |arguments: &[&str]| {
        let url = format!("http://{}", server.address);
        let output = tightwad(&[&["model"], arguments, &["--url", &url]].concat());
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), format!("{out}{error}"))
    };
    assert_eq!(state("one").await, "unloaded");
    let (expected, _) = server.ask("here", PROMPTS[0], json!({})).await;
    let (text, _) = server.ask("one", PROMPTS[0], json!({})).await;
    assert_eq!(text, expected);
    assert_eq!(state("one").await, "ready");

    // A request on the old model finishes while the new model waits.
    let long = json!({"max_tokens": 200, "logit_bias": {"0": -100, "2": -100}});
    let mut body = json!({"model": "one", "messages": [{"role": "user", "content": PROMPTS[1]}],
        "temperature": 0, "seed": 11, "stream": true});
    body.as_object_mut().unwrap().extend(long.as_object().unwrap().clone());
    let stream = server.open_stream(&body).await;
    let (events, (two, _)) = tokio::join!(stream.into_events(), server.ask("two", PROMPTS[0], json!({})));
    assert!(events.iter().any(|event| event["tightwad"]["exact"] == true), "{events:?}");
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!((state("one").await.as_str(), state("two").await.as_str()), ("unloaded", "ready"));
    let (expected, _) = server.ask("here", PROMPTS[1], long).await;
    assert_eq!(text, expected);
    assert_ne!(two, "");

    // The idle pool unloads.
    let start = Instant::now();
    while state("two").await != "unloaded" {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", server.log_text());
        sleep(Duration::from_millis(100)).await;
    }
    // A user loads and unloads models by command.
    let (code, output) = command(&["load", "one"]);
    assert!(code == Some(0) && output.contains("one is ready"), "{output}");
    let (_, output) = command(&["list"]);
    assert!(output.contains("one: ready") && output.contains("two: unloaded"), "{output}");
    let (code, output) = command(&["unload", "one"]);
    assert!(code == Some(0) && output.contains("one is unloaded"), "{output}");
    let (code, output) = command(&["load", "three"]);
    assert!(code == Some(1) && output.contains("there is no model 'three'"), "{output}");
}

#[test]
fn pool_plan_prints_a_table_or_the_shortage() {
    let _permit = one_core();
    let worker = Worker::start(&["--max-memory", "2G", "--token", "t"]);
    let (model, url) = (smollm2().display().to_string(), worker.url());
    let plan = |options: &[&str]| {
        let output =
            tightwad(&[&["pool", "plan", &model, "--worker", &url, "--token", "t"], options].concat());
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), format!("{out}{error}"))
    };
    let (code, table) = plan(&["--exclude-host"]);
    assert!(code == Some(0) && table.contains("0-29") && table.contains("output head"), "{table}");
    let (code, error) = plan(&["--exclude-host", "--context", "8192", "--slots", "64"]);
    assert!(code == Some(1) && error.contains("are missing") && error.contains("lower `context`"), "{error}");
    let (_, json) = plan(&["--exclude-host", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["assignments"][0]["layers"], 30);
}

/// The model needs two workers of this size.
#[test]
fn worker_under_two_addresses_counts_once() {
    let _permit = one_core();
    let worker = Worker::start(&["--max-memory", "76M"]);
    let (model, url) = (smollm2().display().to_string(), worker.url());
    let second_url = format!("{}/", url.replace("127.0.0.1", "localhost"));
    let workers = ["--worker", &url, "--worker", &second_url];
    let options = ["--exclude-host", "--context", "512", "--slots", "2"];
    let output = tightwad(&[&["pool", "plan", &model][..], &workers, &options].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("are missing"), "{error}");
    assert_eq!(error.matches("are the same worker").count(), 1, "{error}");
}
