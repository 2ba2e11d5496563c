//! Servers that exchange text: llama.cpp's own server, and stand-ins for Ollama and vLLM over a real model.
use serde_json::{Value, json};

use crate::support::{
    LlamaServer, Node, Ollama, PROMPTS, Script, Server, Vllm, all_cores, downloaded_model, one_core,
    small_drafter, small_model, smollm2, tightwad,
};

fn sampling_settings() -> [Value; 2] {
    [json!({"temperature": 0}), json!({"temperature": 0.8, "top_p": 0.95, "seed": 77})]
}

/// Serves the small model of this machine, with a text server as drafter, as backend and as target by replay.
/// `lua_server` returns the call of `tw` for the server, with further fields.
fn script(lua_server: impl Fn(&str) -> String) -> String {
    format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{}", name = "here", context = 1024, threads = 1 }}
local server = {}
local replayed = {}
return tw.serve {{ models = {{
  here = here,
  whole = server,
  drafted = tw.speculation {{ target = here, drafters = server, settings = {{ fixed_draft = 4 }} }},
  both = tw.speculation {{ target = here, drafters = {{ tw.lookup {{}}, server }} }},
  free = tw.speculation {{ target = here, drafters = server }},
  replayed = tw.speculation {{ target = replayed, drafters = tw.lookup {{}} }},
}} }}"#,
        small_model().display(),
        lua_server(""),
        lua_server(", verify = \"replay\"")
    )
}

/// Checks a text server in all roles. As a drafter it keeps the output of the target. As a backend it answers with and
/// without a stream. As a target by replay it gives its own answer.
async fn check_all_roles(server: &Server) {
    let mut accepted = 0;
    for settings in sampling_settings() {
        for prompt in &PROMPTS[..3] {
            let (expected, _) = server.ask("here", prompt, settings.clone()).await;
            for model in ["drafted", "both", "free"] {
                let (text, report) = server.ask(model, prompt, settings.clone()).await;
                assert_eq!(text, expected, "{model}, {settings}: {report}");
                assert!(report["fallback"].is_null(), "{report}");
                if model == "drafted" {
                    accepted += report["accepted"].as_u64().unwrap();
                }
            }
        }
    }
    assert!(accepted > 30, "{accepted} tokens of the server's drafts were accepted");
    let mut body = json!({"model": "whole", "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 16, "temperature": 0});
    let (status, complete) = server.post("/v1/chat/completions", &body).await;
    assert_eq!(status, 200, "{complete}");
    let text = complete["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(text.len() > 10, "{complete}");
    assert!(complete["usage"]["completion_tokens"].as_u64().unwrap() > 3, "{complete}");
    body["model"] = json!("replayed");
    let (status, replayed) = server.post("/v1/chat/completions", &body).await;
    assert_eq!(status, 200, "{replayed}");
    assert_eq!(replayed["choices"][0]["message"]["content"], text.as_str());
    for model in ["whole", "replayed"] {
        body["model"] = json!(model);
        body["stream"] = json!(true);
        let events = server.stream(&body).await;
        let parts: Vec<&str> =
            events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(parts.concat(), text, "{model}");
        assert!(parts.len() > 3, "the answer is not streamed: {parts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs pip"]
async fn llama_server_drafts_answers_and_verifies_by_replay() {
    let _permit = one_core();
    let llama = LlamaServer::start(4);
    let server =
        Server::start(&script(|fields| format!("tw.llama_server {{ url = \"{}\"{fields} }}", llama.url)));
    assert!(server.log_text().contains("never faster than the server alone"));
    check_all_roles(&server).await;
    // The same server with OpenAI's API gives log-probabilities.
    let openai = Server::start_process(&script(|fields| {
        format!("tw.openai {{ url = \"{}/v1\"{fields} }}", llama.url)
    }));
    let body = json!({"model": "whole", "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 5,
        "temperature": 0, "logprobs": true, "top_logprobs": 2});
    let request = server.client.post(format!("http://{}/v1/chat/completions", openai.address)).json(&body);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let entries = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert!(!entries.is_empty() && entries[0]["top_logprobs"].as_array().unwrap().len() == 2, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ollama_backend_follows_the_documented_api() {
    let _permit = one_core();
    let node = Node::start(&[("smollm2", &small_model())], &["--context", "1024", "--threads", "1"]);
    let ollama = Ollama::start(&node.url(), "smollm2").await;
    let server = Server::start(&script(|fields| {
        format!("tw.ollama {{ url = \"{}\", model = \"smollm2\"{fields} }}", ollama.url)
    }));
    check_all_roles(&server).await;
    let requests = ollama.requests.lock().unwrap().clone();
    let bodies_of = |path: &str| {
        requests
            .iter()
            .filter(|(request_path, _)| request_path == path)
            .map(|(_, body)| body.clone())
            .collect::<Vec<_>>()
    };
    let chats = bodies_of("/api/chat");
    assert!(
        chats.iter().all(|body| body["stream"] == true && body["options"]["num_predict"] == 16),
        "{chats:?}"
    );
    let drafts = bodies_of("/api/generate");
    assert!(
        drafts.iter().all(|body| body["stream"] == false && body["options"]["temperature"] == 0),
        "{drafts:?}"
    );
    // The prompt contains the chat template of the target.
    assert!(drafts[0]["prompt"].as_str().unwrap().contains("<|im_start|>assistant"), "{}", drafts[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_server_with_prompt_logprobs_verifies_in_one_pass() {
    let _permit = one_core();
    let vllm = Vllm::start().await;
    let script = format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{0}", name = "here", context = 1024, threads = 1 }}
local small = tw.model {{ path = "{1}", name = "small", context = 1024, threads = 1 }}
local server = tw.openai {{ url = "{2}", verify = "logprobs", tokenizer = "{0}" }}
return tw.serve {{ models = {{
  here = here,
  lookup = tw.speculation {{ target = server, drafters = tw.lookup {{}}, settings = {{ fixed_draft = 6 }} }},
  small = tw.speculation {{ target = server, drafters = small, settings = {{ fixed_draft = 3 }} }},
  free = tw.speculation {{ target = server, drafters = {{ tw.lookup {{}}, small }} }},
}} }}"#,
        small_model().display(),
        small_drafter().display(),
        vllm.url
    );
    let server = Server::start(&script);
    let (mut drafted, mut accepted) = (0, 0);
    for prompt in &PROMPTS[..4] {
        let (expected, _) = server.ask("here", prompt, json!({"temperature": 0})).await;
        for model in ["lookup", "small", "free"] {
            let (text, report) = server.ask(model, prompt, json!({"temperature": 0})).await;
            assert_eq!(text, expected, "{model}: {report}");
            assert!(report["fallback"].is_null(), "{report}");
            drafted += report["drafted"].as_u64().unwrap();
            accepted += report["accepted"].as_u64().unwrap();
        }
    }
    assert!(accepted > 20, "{accepted} of {drafted} accepted");
    let requests = vllm.requests.lock().unwrap().clone();
    assert!(requests.iter().any(|body| body["prompt_logprobs"] == 1 && body["max_tokens"] == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusable_text_server_is_refused_with_advice() {
    let _permit = one_core();
    let node = Node::start(&[("smollm2", &small_model())], &["--context", "1024", "--threads", "1"]);
    let error_of = |line: &str| {
        let text = format!(
            "local tw = require \"tightwad\"\nlocal s = tw.openai {{ url = \"{}\" }}\n{line}",
            node.url()
        );
        let script = Script::new(&text);
        let output = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (line, message_part) in [
        (
            "tw.speculation { target = s, drafters = tw.lookup {} }",
            "script.lua:3: 'smollm2' cannot verify drafts",
        ),
        ("tw.openai { url = \"http://127.0.0.1:1\" }", "127.0.0.1:1 does not reply"),
        ("tw.openai { url = \"127.0.0.1:1/v1\" }", "127.0.0.1:1 does not reply"),
        ("tw.openai { url = \"gpu-box\" }", "'url' must begin with tightwad://, http://"),
        (
            "tw.ollama { url = \"http://127.0.0.1:1\", verify = \"guess\" }",
            "'verify' in tw.ollama can be \"replay\"",
        ),
        ("tw.openai { url = s }", "'url' in tw.openai must be a string"),
        ("tw.openai { url = \"http://127.0.0.1:1\", verify = \"logprobs\" }", "needs 'tokenizer'"),
        ("tw.node { url = \"http://127.0.0.1:1\", fallbck = s }", "did you mean 'fallback'?"),
    ] {
        let error = error_of(line);
        assert!(error.contains(message_part), "{line}\n'{message_part}' is not in: {error}");
    }
    let error = error_of(&format!("tw.openai {{ url = \"{}\", model = \"big\" }}", node.url()));
    assert!(error.contains("has no model 'big'; it has: smollm2"), "{error}");
    let error = error_of(&format!("tw.node {{ url = \"{}\", fallback = s }}", node.url()));
    assert!(error.contains("cannot stand by for 'smollm2'"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the large models"]
async fn drafter_with_another_vocabulary_needs_translation() {
    let _permit = all_cores();
    let stack = |fields: &str| {
        format!(
            r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "smollm2", context = 1024, slots = 2 }}
local other = tw.model {{ path = "{}", name = "qwen", context = 1024, slots = 2 }}
return tw.serve {{ models = {{
  plain = target, fast = tw.speculation {{ target = target, drafters = other{fields} }},
}} }}"#,
            smollm2().display(),
            downloaded_model("qwen2.5-coder-0.5b-instruct.gguf").display()
        )
    };
    let script = Script::new(&stack(""));
    let output = tightwad(&["run", &script.path().display().to_string(), "--check"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("'qwen' has another vocabulary than 'smollm2'"), "{error}");
    assert!(error.contains("translate = true"), "{error}");
    let server = Server::start(&stack(", translate = true, settings = { fixed_draft = 4 }"));
    let mut accepted = 0;
    for settings in sampling_settings() {
        for prompt in &PROMPTS[1..4] {
            let (expected, _) = server.ask("plain", prompt, settings.clone()).await;
            let (text, report) = server.ask("fast", prompt, settings.clone()).await;
            assert_eq!(text, expected, "{settings}: {report}");
            accepted += report["accepted"].as_u64().unwrap();
        }
    }
    assert!(accepted > 0, "no translated token was accepted");
}
