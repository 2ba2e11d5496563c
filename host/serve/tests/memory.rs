//! The memory that the server takes for the worst bodies of 10 MiB, while they are parsed and while they run.

// Tests fail by panicking.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use peak_alloc::PeakAlloc;
use tightwad_core::{
    Backend, BackendError, Generator, MAX_JSON_NUMBERS, MAX_JSON_PARTS, Outcome, Request, Sink,
};
use tightwad_net::door::Shutdown;
use tightwad_net::http::MAX_BODY_BYTES;
use tightwad_serve::{Metrics, ModelTable, ServedModels, ServerState, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The memory that one request may take.
const MAX_REQUEST_MEGABYTES: f32 = 100.0;

/// Items of a request that has the largest allowed number of numbers or parts, with its other fields.
const NUMBERS: usize = MAX_JSON_NUMBERS - 9;
const PARTS: usize = MAX_JSON_PARTS - 50;

/// A backend that keeps two clones of its request, as a fleet does, while other choices start.
struct Keeper;

impl Backend for Keeper {
    fn name(&self) -> &str {
        "keeper"
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }
}

#[async_trait]
impl Generator for Keeper {
    async fn generate(&self, request: Request, _: Sink) -> Result<Outcome, BackendError> {
        let clones = [request.clone(), request];
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        drop(clones);
        Err(BackendError::failed("keeper", "the request ran"))
    }
}

/// A body: `start`, `item` as often as allowed, and `end`.
struct Case {
    name: &'static str,
    status: &'static str,
    start: &'static str,
    item: String,
    max_items: usize,
    end: &'static str,
}

impl Case {
    fn new(name: &'static str, status: &'static str, item: &str, max_items: usize) -> Self {
        let item = item.to_owned();
        Self {
            name,
            status,
            start: r#""messages": [{"role": "user", "x": ["#,
            item,
            max_items,
            end: r#"], "content": "x"}]"#,
        }
    }

    /// The same items elsewhere in the body.
    fn between(self, start: &'static str, end: &'static str) -> Self {
        Self { start, end, ..self }
    }

    fn body(&self) -> String {
        let start = format!(r#"{{"model": "m", "n": 8, {}"#, self.start);
        let end = format!(r#"{}, "seed": 1}}"#, self.end);
        let room = MAX_BODY_BYTES - start.len() - end.len();
        let items = format!("{},", self.item).repeat((room / (self.item.len() + 1)).min(self.max_items));
        let body = start + items.trim_end_matches(',') + &end;
        assert!(body.len() <= MAX_BODY_BYTES, "{}", self.name);
        body
    }
}

/// Lists in fields that are kept.
fn lists() -> Vec<Case> {
    const PARAMETERS: [&str; 2] = [
        r#""messages": [{"role": "user", "content": "x"}],
           "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": ["#,
        "]}}}]",
    ];
    const SCHEMA: [&str; 2] = [
        r#""messages": [{"role": "user", "content": "x"}],
           "response_format": {"type": "json_schema", "json_schema": {"schema": {"x": ["#,
        "]}}}",
    ];
    let deep = "[".repeat(100) + &"]".repeat(100);
    let string = format!("\"{}\"", "y".repeat(90));
    vec![
        Case::new("zeros", "400", "0", usize::MAX),
        Case::new("as many zeros as allowed", "503", "0", NUMBERS),
        Case::new("as many objects as allowed", "503", r#"{"a":0}"#, PARTS / 2),
        Case::new("as many strings as allowed", "503", &string, PARTS),
        Case::new("deep lists", "400", &deep, usize::MAX),
        Case::new("as many deep lists as allowed", "503", &deep, PARTS / 100),
        Case::new("zeros in parameters", "400", "0", usize::MAX).between(PARAMETERS[0], PARAMETERS[1]),
        Case::new("as many in parameters", "503", "0", NUMBERS).between(PARAMETERS[0], PARAMETERS[1]),
        Case::new("as many in a schema", "503", "0", NUMBERS).between(SCHEMA[0], SCHEMA[1]),
    ]
}

/// Messages, texts and stop strings.
fn texts() -> Vec<Case> {
    const MESSAGE: &str = r#"{"role":"user","content":""}"#;
    const CONTENT: [&str; 2] = [r#""messages": [{"role": "user", "content": "#, "}]"];
    const LIST: [&str; 2] = [r#""messages": [{"role": "user", "content": ["#, "]}]"];
    const STOP: [&str; 2] = [r#""messages": [{"role": "user", "content": "x"}], "stop": ["#, "]"];
    let part = format!(r#"{{"type":"text","text":"{}"}}"#, "y".repeat(500));
    let long = format!("\"{}\"", "y".repeat(MAX_BODY_BYTES - 200));
    let escapes = format!("\"{}\"", "\\n".repeat(MAX_BODY_BYTES / 2 - 100));
    vec![
        Case::new("tiny messages", "400", MESSAGE, usize::MAX).between(r#""messages": ["#, "]"),
        Case::new("as many as allowed", "503", MESSAGE, PARTS / 5).between(r#""messages": ["#, "]"),
        Case::new("a long string", "503", &long, 1).between(CONTENT[0], CONTENT[1]),
        Case::new("a long string of escapes", "503", &escapes, 1).between(CONTENT[0], CONTENT[1]),
        Case::new("parts of text", "503", &part, PARTS / 5).between(LIST[0], LIST[1]),
        Case::new("stop strings", "400", "\"\"", usize::MAX).between(STOP[0], STOP[1]),
        Case::new("as many stop strings as parts", "400", "\"\"", PARTS).between(STOP[0], STOP[1]),
    ]
}

/// A body of `count` biases.
fn biases(count: usize) -> String {
    let biases: Vec<String> = (0..count).map(|token| format!("\"{token}\":1")).collect();
    format!(r#"{{"model": "m", "messages": [], "logit_bias": {{{}}}}}"#, biases.join(","))
}

/// Sends `body` and returns the status and the peak of the memory beyond the memory before, in MB.
async fn post(address: std::net::SocketAddr, body: &str) -> (String, f32) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage_as_mb();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(body.as_bytes()).await.unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    (response[9..12].to_owned(), ALLOCATOR.peak_usage_as_mb() - before)
}

#[tokio::test]
async fn no_body_takes_more_than_100_mb() {
    let models = ServedModels::new([("m".to_owned(), Arc::new(Keeper) as _)]);
    let state = ServerState::new(Arc::new(ModelTable::new(models)), Arc::new(Metrics::default()), None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(listener, state, Shutdown::never()));
    let cases = lists().into_iter().chain(texts()).map(|case| (case.name, case.status, case.body()));
    let biases = [("many biases", "400", biases(700_000)), ("fewer biases", "400", biases(PARTS))];
    for (name, status, body) in cases.chain(biases) {
        let (actual, megabytes) = post(address, &body).await;
        println!("{name}: {} bytes, status {actual}, {megabytes:.1} MB", body.len());
        assert_eq!(actual, status, "{name}");
        assert!(megabytes < MAX_REQUEST_MEGABYTES, "{name}: {megabytes} MB");
    }
    serving.abort();
}
