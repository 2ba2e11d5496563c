//! Prompts that are hostile to a tokenizer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tightwad_zoo::Kind;

use crate::support::{Server, share, small, zoo};

/// What prompts are made of: letters, blanks, Thai, upper case, line breaks, punctuation.
const PARTS: [&str; 6] = ["a", " ", "ก", "A", "\n", "!"];

fn script() -> String {
    let one = |kind: &Kind| {
        format!(
            "[\"{0}\"] = tw.model {{ path = \"{1}\", context = 2048, slots = 2 }},",
            kind.name(),
            zoo(*kind).display()
        )
    };
    let zoo: Vec<String> = Kind::PRE_TOKENIZERS.iter().map(one).collect();
    format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ plain = tw.model {{ path = \"{}\", context = 2048, threads = 1 }}, {} }} }}",
        small().display(),
        zoo.join(" ")
    )
}

fn bodies(model: &str, text: &str) -> [(&'static str, Value); 2] {
    [
        ("/v1/completions", json!({"model": model, "prompt": text, "max_tokens": 2})),
        (
            "/v1/chat/completions",
            json!({"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 2}),
        ),
    ]
}

/// Sends a prompt by one of the two endpoints: an answer or a refusal must come soon.
async fn send(server: &Server, model: &str, part: &str, bytes: usize, endpoint: usize) -> u16 {
    let (path, body) = &bodies(model, &part.repeat(bytes / part.len()))[endpoint];
    let start = Instant::now();
    let (status, answer) = server.post(path, body).await;
    let case = format!("{model} {part:?} x {bytes} at {path}: {status} {answer}");
    assert!(status == 200 || (400..500).contains(&status), "{case}");
    assert!(start.elapsed() < Duration::from_secs(30), "{case}");
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn long_stretches_of_one_character_get_an_answer_or_a_refusal() {
    let _turn = share();
    let server = Server::start(&script());
    let mut models: Vec<String> = Kind::PRE_TOKENIZERS.iter().map(|kind| kind.name()).collect();
    models.push("plain".to_owned());
    for model in &models {
        for part in PARTS {
            // This overflowed a stack of 2 MiB.
            for endpoint in [0, 1] {
                send(&server, model, part, 20_000, endpoint).await;
            }
        }
        // The longest body has 10 MiB.
        for (part, endpoint) in [("a", 0), (" ", 1), ("ก", 0)] {
            assert_eq!(send(&server, model, part, 9_900_000, endpoint).await, 400);
        }
        let body = json!({"model": model, "prompt": "Hi", "max_tokens": 2});
        let (status, answer) = server.post("/v1/completions", &body).await;
        assert_eq!(status, 200, "{model}: {answer}");
    }
    assert_eq!(send(&server, "plain", "a", 10_600_000, 0).await, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_cannot_fit_is_refused_before_it_is_read_and_others_answer_meanwhile() {
    let _turn = share();
    let server = Server::start(&script());
    let text = "word ".repeat(1_900_000);
    let hostile: Vec<_> = (0..6)
        .map(|_| {
            let (client, url) = (server.client.clone(), server.url("/v1/completions"));
            let body = json!({"model": "pre-tekken", "prompt": text, "max_tokens": 2});
            tokio::spawn(async move { client.post(url).json(&body).send().await.unwrap() })
        })
        .collect();
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(server.get("/health").await.0, 200);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        server.ask("plain", "Say hello.", json!({"max_tokens": 4})).await;
    }
    for request in hostile {
        let response = request.await.unwrap();
        assert_eq!(response.status(), 400);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["code"], "context_length_exceeded", "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grammars_that_nest_without_end_are_refused() {
    let _turn = share();
    let server = Server::start(&script());
    let deep = |open: &str, close: &str, depth: usize| {
        [open.repeat(depth), "\"a\"".to_owned(), close.repeat(depth)].concat()
    };
    for depth in [100, 10_000, 1_000_000] {
        for grammar in [
            format!("start: {}", deep("(", ")", depth)),
            format!("start: {}", deep("[", "]", depth)),
            format!("start: /{}a{}/", "(".repeat(depth), ")".repeat(depth)),
        ] {
            let body = json!({"model": "plain", "prompt": "x", "max_tokens": 1, "grammar": grammar});
            let (status, answer) = server.post("/v1/completions", &body).await;
            assert!(status == 200 || status == 400, "depth {depth}: {status} {answer}");
        }
    }
    server.ask("plain", "Say hello.", json!({"max_tokens": 4})).await;
}
