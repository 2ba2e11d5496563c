//! Models with recurrent layers behind the endpoint.

use serde_json::{Value, json};
use tightwad_zoo::Kind;

use crate::support::{Script, Server, share, tightwad, zoo};

fn script(kind: Kind) -> String {
    format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ {} = tw.model {{ path = \"{}\", slots = 1, threads = 1 }} }} }}",
        kind.name(),
        zoo(kind).display()
    )
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

async fn answer(server: &Server, model: &str, messages: &[Value]) -> String {
    let body = json!({"model": model, "messages": messages, "max_tokens": 24, "temperature": 0.7, "seed": 3});
    let (status, answer) = server.post("/v1/chat/completions", &body).await;
    assert_eq!(status, 200, "{model}: {answer}");
    answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_as_the_first_one_of_a_fresh_host() {
    let _turn = share();
    for kind in Kind::RECURRENT {
        let model = kind.name();
        let system = message("system", "You answer questions about the sea in short sentences.");
        let first = vec![system.clone(), message("user", "How deep is it?")];
        let second = vec![system, message("user", "Who lives there?")];
        let server = Server::start(&script(kind));
        let mut asked: Vec<(Vec<Value>, String)> = Vec::new();
        // The same again, another question with the same system prompt, three turns.
        for messages in [&first, &first, &second, &first] {
            asked.push((messages.clone(), answer(&server, &model, messages).await));
        }
        // Clients that leave in the middle.
        let stream = json!({"model": model, "messages": first, "max_tokens": 400, "stream": true});
        drop(server.begin(&stream).await);
        let mut conversation = first.clone();
        for turn in 0..3 {
            let answered = answer(&server, &model, &conversation).await;
            asked.push((conversation.clone(), answered.clone()));
            conversation.push(message("assistant", &answered));
            conversation.push(message("user", &format!("And then? {turn}")));
        }
        drop(server);
        for (messages, answered) in asked {
            let fresh = Server::start(&script(kind));
            assert_eq!(answer(&fresh, &model, &messages).await, answered, "{model}: {messages:?}");
        }
    }
}

#[test]
fn speculation_on_recurrent_layers_is_refused_when_the_script_is_loaded() {
    for kind in Kind::RECURRENT {
        for stack in [
            "tw.speculation { target = m, drafters = tw.lookup {} }",
            "tw.consensus { target = m, drafters = tw.lookup {} }",
            "tw.speculation { target = other, drafters = m }",
        ] {
            let script = Script::new(&format!(
                "local tw = require \"tightwad\"\nlocal m = tw.model {{ path = \"{}\", name = \"m\", context = 512 }}\nlocal other = tw.model {{ path = \"{}\", context = 512 }}\nreturn tw.serve {{ models = {{ x = {stack} }} }}",
                zoo(kind).display(),
                zoo(Kind::Qwen3Moe).display()
            ));
            let done = tightwad(&["run", &script.path().display().to_string(), "--check"]);
            let error = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(1), "{kind:?} {stack}: {error}");
            assert!(
                error.contains("script.lua:4: 'm' cannot") && error.contains("recurrent layers"),
                "{error}"
            );
        }
    }
}
