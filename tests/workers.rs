//! Workers and pools as people use them: who is let in, what is refused and how to mend it, models that
//! are swapped while the host runs, plans.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{PROMPTS, Script, Server, Worker, share, smollm2, smollm2_q2, tightwad};

#[tokio::test]
async fn what_cannot_be_pooled_is_refused_with_the_way_out() {
    let _turn = share();
    let worker = Worker::start(&["--memory", "40M", "--token", "secret"]);
    let check = |workers: &str, more: &str| {
        let script = Script::new(&format!(
            "local tw = require \"tightwad\"\nlocal p = tw.pooling {{ model = \"{}\", here = false, context = 512, slots = 2, workers = {{ {workers} }}{more} }}\nreturn tw.serve {{ models = {{ p = p }} }}",
            smollm2().display()
        ));
        let done = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{error}");
        assert!(error.contains("script.lua:2"), "{error}");
        error
    };
    let own = format!("{{ url = \"{}\", token = \"secret\" }}", worker.url());
    let error = check(&own, "");
    assert!(error.contains("are missing") && error.contains("of 30 layers would fit"), "{error}");
    let error = check(&format!("\"{}\"", worker.url()), "");
    assert!(error.contains("does not take this token"), "{error}");
    assert!(check("\"http://127.0.0.1:1\"", "").contains("is `tightwad worker` running there"));
    assert!(check("", "").contains("nowhere to compute"));
    assert!(check("\"nonsense\"", "").contains("not the address of a worker"));
    assert!(check(&own, ", wokers = {}").contains("did you mean 'workers'"));
    let twice = check(&format!("{own}, {own}"), "");
    assert!(twice.contains("is given twice"), "{twice}");

    // Something that answers HTTP and is no worker; a worker of another version; something else.
    let not_found = serve("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    assert!(check(&format!("\"http://{not_found}\""), "").contains("is no worker (404"));
    let old = serve(concat!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
        r#"{"tightwad":"0.0.9","protocol":1,"rpc":[6,1],"device":"CPU","gpu":false,"threads":2,"memory":1000000000,"free":1000000000,"speed":1,"cached":0,"pools":0}"#
    ));
    let error = check(&format!("\"http://{old}\""), "");
    assert!(
        error.contains("0.0.9 with version 6.1 of llama.cpp's RPC") && error.contains("update"),
        "{error}"
    );
    let bare = serve("\x00\x01\x02 not HTTP");
    let error = check(&format!("\"http://{bare}\""), "");
    assert!(error.contains("not llama.cpp's own rpc-server"), "{error}");
}

/// llama.cpp takes sixteen.
#[test]
fn seventeen_workers_are_one_too_many() {
    let _turn = share();
    let worker = serve(concat!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
        r#"{"tightwad":"0.1.0","protocol":1,"rpc":[7,0],"device":"CPU","gpu":false,"threads":2,"memory":1000000000,"free":1000000000,"speed":1000000000,"cached":0,"pools":0}"#
    ));
    let plan = |count: u8| {
        let mut arguments = vec!["pool".to_owned(), "plan".to_owned(), smollm2().display().to_string()];
        // All of loopback is this machine.
        let address = |number: u8| format!("127.0.0.{}:{}", number + 1, worker.port());
        arguments.extend((0..count).flat_map(|number| ["--worker".to_owned(), address(number)]));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let done = tightwad(&arguments);
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    assert_eq!(plan(16), (Some(0), String::new()));
    let (code, error) = plan(17);
    assert!(code == Some(1) && error.contains("at most 16 workers, not 17: leave some out"), "{error}");
}

#[tokio::test]
async fn tensors_can_be_pinned_elsewhere_than_their_layer() {
    let _turn = share();
    let workers = [0, 1].map(|_| Worker::start(&["--memory", "90M", "--token", "t"]));
    let pool = |name: &str, pin: &str| {
        let one = |(index, worker): (usize, &Worker)| {
            format!("{{ url = \"{}\", token = \"t\", name = \"w{index}\" }}", worker.url())
        };
        let workers: Vec<String> = workers.iter().enumerate().map(one).collect();
        format!(
            "tw.pooling {{ model = \"{}\", name = \"{name}\", here = false, context = 512, slots = 2, load = \"demand\", workers = {{ {} }}, pin = {{ {pin} }} }}",
            smollm2().display(),
            workers.join(", ")
        )
    };
    let script = format!(
        "local tw = require \"tightwad\"\nlocal here = tw.model {{ path = \"{}\", name = \"here\", context = 512, threads = 1 }}\nreturn tw.serve {{ models = {{ here = here, pinned = {}, wrong = {} }} }}",
        smollm2().display(),
        pool("pinned", "[\"blk.[0-9]+.ffn_down\"] = \"here\", [\"blk.0.ffn_up\"] = \"w1\""),
        pool("wrong", "ffn_down = \"w9\""),
    );
    let server = Server::start(&script);
    let (here, _) = server.ask("here", PROMPTS[0], json!({})).await;
    let (pinned, _) = server.ask("pinned", PROMPTS[0], json!({})).await;
    assert_eq!(pinned, here);
    let body = json!({"model": "wrong", "messages": [{"role": "user", "content": "hi"}]});
    let (status, answer) = server.post("/v1/chat/completions", &body).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 503 && message.contains("the worker 'w9', which has no layers"), "{message}");
}

/// Answers every request with the same bytes, on all of loopback.
fn serve(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = SocketAddr::new([127, 0, 0, 1].into(), listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                // A request is over when nothing more comes.
                connection.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
                while connection.read(&mut [0; 65536]).is_ok_and(|read| read > 0) {}
                let _ = connection.write_all(answer.as_bytes());
            });
        }
    });
    address
}

#[tokio::test]
async fn a_worker_lets_in_whom_it_should() {
    let _turn = share();
    let worker = Worker::start(&["--memory", "100M", "--token", "secret"]);
    let client = tightwad_net::machine_client().build().unwrap();
    let url = |path: &str| format!("{}{path}", worker.url());
    assert_eq!(client.get(url("/health")).send().await.unwrap().status(), 200);
    for path in ["/v1/worker", "/v1/worker/rpc"] {
        assert_eq!(client.get(url(path)).send().await.unwrap().status(), 401);
        assert_eq!(client.get(url(path)).bearer_auth("guess").send().await.unwrap().status(), 401);
    }
    let facts: Value =
        client.get(url("/v1/worker")).bearer_auth("secret").send().await.unwrap().json().await.unwrap();
    assert_eq!((facts["memory"].as_u64(), facts["pools"].as_u64()), (Some(100 << 20), Some(0)));
    // Not a tunnel: told so.
    let plain = client.get(url("/v1/worker/rpc")).bearer_auth("secret").send().await.unwrap();
    assert_eq!(plain.status(), 400);
    // Without a token, other machines are not let in; with a list, only those on it.
    let done = tightwad(&["worker", "--listen", "0.0.0.0:0"]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("set a token"));
    let closed = Worker::start(&["--memory", "100M", "--allow", "10.99.0.0/16"]);
    let refused = client.get(format!("{}/v1/worker", closed.url())).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let done = tightwad(&["worker", "--allow", "somewhere"]);
    assert_eq!(done.status.code(), Some(2));
}

#[tokio::test]
async fn models_are_swapped_while_the_host_runs() {
    let _turn = share();
    // Enough for one of the two models, not for both.
    let worker = Worker::start(&["--memory", "170M", "--token", "t"]);
    let pool = |name: &str, path: &std::path::Path, more: &str| {
        format!(
            "tw.pooling {{ model = \"{}\", name = \"{name}\", here = false, context = 512, slots = 2, workers = {{ {{ url = \"{}\", token = \"t\" }} }}, load = \"demand\"{more} }}",
            path.display(),
            worker.url()
        )
    };
    let script = format!(
        "local tw = require \"tightwad\"\nlocal here = tw.model {{ path = \"{}\", name = \"here\", context = 512, threads = 1 }}\nreturn tw.serve {{ models = {{ here = here, one = {}, two = {} }} }}",
        smollm2().display(),
        pool("one", &smollm2(), ""),
        pool("two", &smollm2_q2(), ", ttl = 2"),
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
        let done = tightwad(&[&["model"], arguments, &["--url", &url]].concat());
        let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.code(), format!("{out}{error}"))
    };
    assert_eq!(state("one").await, "unloaded");
    let (here, _) = server.ask("here", PROMPTS[0], json!({})).await;
    let (one, _) = server.ask("one", PROMPTS[0], json!({})).await;
    assert_eq!(one, here);
    assert_eq!(state("one").await, "ready");

    // A request on the old model goes on while the new one waits for it.
    let long = json!({"max_tokens": 200, "logit_bias": {"0": -100, "2": -100}});
    let mut body = json!({"model": "one", "messages": [{"role": "user", "content": PROMPTS[1]}],
        "temperature": 0, "seed": 11, "stream": true});
    body.as_object_mut().unwrap().extend(long.as_object().unwrap().clone());
    let old = server.begin(&body).await;
    let (old, (two, _)) = tokio::join!(old.rest(), server.ask("two", PROMPTS[0], json!({})));
    assert!(old.iter().any(|event| event["tightwad"]["exact"] == true), "{old:?}");
    let old: String =
        old.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!((state("one").await.as_str(), state("two").await.as_str()), ("unloaded", "ready"));
    let (truth, _) = server.ask("here", PROMPTS[1], long).await;
    assert_eq!(old, truth);
    assert_ne!(two, "");

    // Nobody uses it: it goes by itself.
    let start = Instant::now();
    while state("two").await != "unloaded" {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", server.logged());
        sleep(Duration::from_millis(100)).await;
    }
    // By hand.
    let (code, said) = command(&["load", "one"]);
    assert!(code == Some(0) && said.contains("one is ready"), "{said}");
    let (_, said) = command(&["list"]);
    assert!(said.contains("one: ready") && said.contains("two: unloaded"), "{said}");
    let (code, said) = command(&["unload", "one"]);
    assert!(code == Some(0) && said.contains("one is unloaded"), "{said}");
    let (code, said) = command(&["load", "three"]);
    assert!(code == Some(1) && said.contains("there is no model 'three'"), "{said}");
}

#[test]
fn a_plan_is_a_table_that_says_why_not() {
    let _turn = share();
    let worker = Worker::start(&["--memory", "2G", "--token", "t"]);
    let (model, url) = (smollm2().display().to_string(), worker.url());
    let plan = |more: &[&str]| {
        let done = tightwad(&[&["pool", "plan", &model, "--worker", &url, "--token", "t"], more].concat());
        let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.code(), format!("{out}{error}"))
    };
    let (code, table) = plan(&["--no-local"]);
    assert!(code == Some(0) && table.contains("0-29") && table.contains("output head"), "{table}");
    let (code, error) = plan(&["--no-local", "--context", "8192", "--slots", "64"]);
    assert!(code == Some(1) && error.contains("are missing") && error.contains("lower `context`"), "{error}");
    let (_, json) = plan(&["--no-local", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["parts"][0]["layers"], 30);
}
