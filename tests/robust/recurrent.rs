//! Models with recurrent layers.

use serde_json::{Value, json};
use tightwad_zoo::Kind;

use crate::support::{Node, Server, lua_workers, one_core, start_workers, zoo_model};

/// With snapshots, with snapshots and heads, and without both. The tests of the engine cover the other architectures.
const KINDS: [Kind; 3] = [Kind::Lfm2, Kind::Qwen35Mtp, Kind::Mamba2];
/// The memory per worker with which these models need two workers.
const WORKER_MEMORY: [&str; 3] = ["14M", "18M", "13M"];

fn script(kind: Kind) -> String {
    format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ [\"{}\"] = tw.model {{ path = \"{}\", slots = 1, threads = 1 }} }} }}",
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
    for kind in KINDS {
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
    for kind in KINDS.into_iter().chain([Kind::Glm4Moe]) {
        let path = zoo_model(kind);
        let model = |name: &str| {
            format!(
                "tw.model {{ path = \"{}\", name = \"{name}\", slots = 2, context = 1024 }}",
                path.display()
            )
        };
        let server = Server::start(&format!(
            r#"local tw = require "tightwad"
local target, twin, second_twin = {}, {}, {}
local stranger = tw.model {{ path = "{}", name = "stranger", slots = 2, context = 1024 }}
local function consensus(drafters)
  return tw.consensus {{ target = target, drafters = drafters, rule = "strict", min_agreement = 0, audit_rate = 1 }}
end
return tw.serve {{ models = {{
  plain = target,
  own = tw.speculation {{ target = target }},
  drafted = tw.speculation {{ target = target, drafters = {{ twin, tw.lookup {{}} }} }},
  agreed = consensus {{ twin, second_twin }},
  disputed = consensus {{ twin, stranger }},
}} }}"#,
            model("target"),
            model("twin"),
            model("second_twin"),
            zoo_model(Kind::Gemma3).display()
        ));
        let mut conversation = vec![message("user", "Tell me about the sea, the sea, the sea, the sea.")];
        for turn in 0..3 {
            let plain = ask(&server, "plain", &conversation).await;
            // Drafters that equal the target agree on its tokens. A stranger never agrees with them.
            for mode in ["own", "drafted", "agreed", "disputed"] {
                assert_eq!(ask(&server, mode, &conversation).await, plain, "{kind:?}, {mode}, turn {turn}");
            }
            conversation.push(message("assistant", &plain));
            conversation.push(message("user", &format!("And then? {turn}")));
        }
    }
}

/// The model on this machine, on a node, and over two workers that need each other's memory.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and iproute2"]
async fn recurrent_model_answers_alike_here_on_a_node_and_in_a_pool() {
    let _permit = one_core();
    for (kind, memory) in KINDS.into_iter().zip(WORKER_MEMORY) {
        let path = zoo_model(kind);
        let node = Node::start(&[("m", &path)], &["--threads", "1", "--context", "1024"]);
        let workers = start_workers(2, &["--max-memory", memory]).await;
        let server = Server::start(&format!(
            r#"local tw = require "tightwad"
local node = tw.node {{ url = "{1}", name = "node" }}
local pool = tw.pooling {{ model = "{0}", name = "pool", include_host = false, context = 1024, slots = 2, workers = {{ {2} }} }}
return tw.serve {{ models = {{
  plain = tw.model {{ path = "{0}", slots = 1, threads = 1, context = 1024 }},
  node = tw.speculation {{ target = node }},
  pool = tw.speculation {{ target = pool }},
}} }}"#,
            path.display(),
            node.url(),
            lua_workers(&workers)
        ));
        let question =
            |about: &str| vec![message("user", &format!("Tell me about {about}, {about}, {about}."))];
        let mut conversations = [question("the sea"), question("a hill")];
        for turn in 0..2 {
            let [first, second] = &conversations;
            let plain = [ask(&server, "plain", first).await, ask(&server, "plain", second).await];
            for place in ["node", "pool"] {
                // Two sequences share the passes.
                let both = tokio::join!(ask(&server, place, first), ask(&server, place, second));
                assert_eq!([both.0, both.1], plain, "{kind:?}, {place}, turn {turn}");
            }
            for (conversation, answer) in conversations.iter_mut().zip(plain) {
                conversation.push(message("assistant", &answer));
                conversation.push(message("user", "And then?"));
            }
        }
        let (_, status) = server.get("/v1/tightwad/status").await;
        let status: Value = serde_json::from_str(&status).unwrap();
        let pool = status["models"]
            .as_array()
            .unwrap()
            .iter()
            .find(|model| model["assignments"].is_array())
            .unwrap();
        let assignments = pool["assignments"].as_array().unwrap().iter();
        let holders = assignments.filter(|assignment| assignment["layers"].as_u64() > Some(0)).count();
        assert_eq!(holders, 2, "{kind:?}: {pool}");
    }
}
