//! Models with recurrent layers.

use serde_json::{Value, json};
use tightwad_zoo::Kind;

use crate::support::{Server, one_core, zoo_model};

fn script(kind: Kind) -> String {
    format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ {} = tw.model {{ path = \"{}\", slots = 1, threads = 1 }} }} }}",
        kind.name(),
        zoo_model(kind).display()
    )
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

async fn ask(server: &Server, model: &str, messages: &[Value]) -> String {
    let body = json!({"model": model, "messages": messages, "max_tokens": 24, "temperature": 0.7, "seed": 3});
    let (status, answer) = server.post("/v1/chat/completions", &body).await;
    assert_eq!(status, 200, "{model}: {answer}");
    answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn recurrent_model_answers_each_request_like_a_fresh_host() {
    let _permit = one_core();
    for kind in Kind::RECURRENT {
        let model = kind.name();
        let system = message("system", "You answer questions about the sea in short sentences.");
        let first = vec![system.clone(), message("user", "How deep is it?")];
        let second = vec![system, message("user", "Who lives there?")];
        let server = Server::start(&script(kind));
        let mut answers: Vec<(Vec<Value>, String)> = Vec::new();
        // Repeat a question, and ask another question with the same system prompt.
        for messages in [&first, &first, &second, &first] {
            answers.push((messages.clone(), ask(&server, &model, messages).await));
        }
        // A client disconnects in the middle of a stream. A conversation of three turns follows.
        let stream = json!({"model": model, "messages": first, "max_tokens": 400, "stream": true});
        drop(server.open_stream(&stream).await);
        let mut conversation = first.clone();
        for turn in 0..3 {
            let answer = ask(&server, &model, &conversation).await;
            answers.push((conversation.clone(), answer.clone()));
            conversation.push(message("assistant", &answer));
            conversation.push(message("user", &format!("And then? {turn}")));
        }
        drop(server);
        for (messages, expected) in answers {
            let fresh = Server::start(&script(kind));
            assert_eq!(ask(&fresh, &model, &messages).await, expected, "{model}: {messages:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_over_a_recurrent_model_answer_like_the_model() {
    let _permit = one_core();
    for kind in Kind::RECURRENT {
        let path = zoo_model(kind);
        let model = |name: &str| {
            format!(
                "tw.model {{ path = \"{}\", name = \"{name}\", slots = 2, context = 1024 }}",
                path.display()
            )
        };
        let server = Server::start(&format!(
            r#"local tw = require "tightwad"
local target, drafter = {}, {}
return tw.serve {{ models = {{
  plain = target,
  lookup = tw.speculation {{ target = target, drafters = tw.lookup {{}} }},
  drafted = tw.speculation {{ target = target, drafters = {{ drafter, tw.lookup {{}} }} }},
}} }}"#,
            model("target"),
            model("drafter")
        ));
        let mut conversation = vec![message("user", "Tell me about the sea, the sea, the sea, the sea.")];
        for turn in 0..3 {
            let plain = ask(&server, "plain", &conversation).await;
            for mode in ["lookup", "drafted"] {
                assert_eq!(ask(&server, mode, &conversation).await, plain, "{kind:?}, {mode}, turn {turn}");
            }
            conversation.push(message("assistant", &plain));
            conversation.push(message("user", &format!("And then? {turn}")));
        }
    }
}
