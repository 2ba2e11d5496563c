//! Prompts that are hostile to a tokenizer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tightwad_zoo::Kind;

use crate::support::{Server, one_core, small_model, zoo_model};

/// The characters of the prompts: letters, blanks, Thai, upper case, line breaks, punctuation.
const CHARACTERS: [&str; 6] = ["a", " ", "ก", "A", "\n", "!"];

/// Serves the small model, and a model of the zoo for each pre-tokenizer.
fn script() -> String {
    let lua_model = |kind: &Kind| {
        format!(
            "[\"{0}\"] = tw.model {{ path = \"{1}\", context = 2048, slots = 2 }},",
            kind.name(),
            zoo_model(*kind).display()
        )
    };
    let zoo_models: Vec<String> = Kind::PRE_TOKENIZERS.iter().map(lua_model).collect();
    format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ plain = tw.model {{ path = \"{}\", context = 2048, threads = 1 }}, {} }} }}",
        small_model().display(),
        zoo_models.join(" ")
    )
}

/// The two endpoints with a request for each.
fn requests(model: &str, text: &str) -> [(&'static str, Value); 2] {
    [
        ("/v1/completions", json!({"model": model, "prompt": text, "max_tokens": 2})),
        (
            "/v1/chat/completions",
            json!({"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 2}),
        ),
    ]
}

/// Sends a prompt to one of the two endpoints and returns the status. The answer or the refusal must arrive within 30 s.
async fn send(server: &Server, model: &str, character: &str, bytes: usize, endpoint: usize) -> u16 {
    let (path, body) = &requests(model, &character.repeat(bytes / character.len()))[endpoint];
    let start = Instant::now();
    let (status, answer) = server.post(path, body).await;
    let case = format!("{model} {character:?} x {bytes} at {path}: {status} {answer}");
    assert!(status == 200 || (400..500).contains(&status), "{case}");
    assert!(start.elapsed() < Duration::from_secs(30), "{case}");
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn long_runs_of_one_character_get_an_answer_or_a_refusal() {
    let _permit = one_core();
    let server = Server::start(&script());
    let mut models: Vec<String> = Kind::PRE_TOKENIZERS.iter().map(|kind| kind.name()).collect();
    models.push("plain".to_owned());
    for model in &models {
        for character in CHARACTERS {
            // Such prompts overflowed a stack of 2 MiB.
            for endpoint in [0, 1] {
                send(&server, model, character, 20_000, endpoint).await;
            }
        }
        // The host accepts bodies of at most 10 MiB.
        for (character, endpoint) in [("a", 0), (" ", 1), ("ก", 0)] {
            assert_eq!(send(&server, model, character, 9_900_000, endpoint).await, 400);
        }
        let body = json!({"model": model, "prompt": "Hi", "max_tokens": 2});
        let (status, answer) = server.post("/v1/completions", &body).await;
        assert_eq!(status, 200, "{model}: {answer}");
    }
    assert_eq!(send(&server, "plain", "a", 10_600_000, 0).await, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_prompt_is_refused_while_other_requests_run() {
    let _permit = one_core();
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
async fn deeply_nested_grammars_do_not_stop_the_host() {
    let _permit = one_core();
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
