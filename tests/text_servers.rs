//! Servers that speak text: llama-server itself, and Ollama's API over a real model.
use serde_json::{Value, json};

use crate::support::{
    LlamaServer, Node, Ollama, PROMPTS, Script, Server, Vllm, alone, model, share, small, small_drafter,
    smollm2, tightwad,
};

fn settings() -> [Value; 2] {
    [json!({"temperature": 0}), json!({"temperature": 0.8, "top_p": 0.95, "seed": 77})]
}

/// The small model here, with `server` (a call of `tw`) as drafter, as backend and as target by replay.
fn script(server: impl Fn(&str) -> String) -> String {
    format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{}", name = "here", context = 1024, threads = 1 }}
local server = {}
local replayed = {}
return tw.serve {{ models = {{
  here = here,
  whole = server,
  drafted = tw.speculation {{ target = here, draft = server, settings = {{ fixed_draft = 4 }} }},
  both = tw.speculation {{ target = here, draft = {{ tw.lookup {{}}, server }} }},
  free = tw.speculation {{ target = here, draft = server }},
  replayed = tw.speculation {{ target = replayed, draft = tw.lookup {{}} }},
}} }}"#,
        small().display(),
        server(""),
        server(", verify = \"replay\"")
    )
}

/// As a drafter the server changes nothing; as a whole backend it answers, streamed and not; replayed it
/// gives its own answer.
async fn works_as_everything(server: &Server) {
    let mut drafted = 0;
    for settings in settings() {
        for prompt in &PROMPTS[..3] {
            let (here, _) = server.ask("here", prompt, settings.clone()).await;
            for model in ["drafted", "both", "free"] {
                let (text, report) = server.ask(model, prompt, settings.clone()).await;
                assert_eq!(text, here, "{model}, {settings}: {report}");
                assert!(report["fallback"].is_null(), "{report}");
                if model == "drafted" {
                    drafted += report["accepted"].as_u64().unwrap();
                }
            }
        }
    }
    assert!(drafted > 30, "{drafted} tokens of the server's drafts were accepted");
    let mut body = json!({"model": "whole", "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 16, "temperature": 0});
    let (status, whole) = server.post("/v1/chat/completions", &body).await;
    assert_eq!(status, 200, "{whole}");
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(text.len() > 10, "{whole}");
    assert!(whole["usage"]["completion_tokens"].as_u64().unwrap() > 3, "{whole}");
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
        assert!(parts.len() > 3, "it is streamed: {parts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs pip"]
async fn a_llama_server_drafts_answers_and_is_replayed() {
    let _turn = share();
    let llama = LlamaServer::start(4);
    let server =
        Server::start(&script(|more| format!("tw.llama_server {{ url = \"{}\"{more} }}", llama.url)));
    assert!(server.logged().contains("never faster than the server alone"));
    works_as_everything(&server).await;
    // What it streams by OpenAI's interface, logprobs included.
    let openai =
        Server::process_of(&script(|more| format!("tw.openai {{ url = \"{}/v1\"{more} }}", llama.url)));
    let body = json!({"model": "whole", "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 5,
        "temperature": 0, "logprobs": true, "top_logprobs": 2});
    let answer = server.client.post(format!("http://{}/v1/chat/completions", openai.address)).json(&body);
    let answer: Value = answer.send().await.unwrap().json().await.unwrap();
    let entries = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert!(!entries.is_empty() && entries[0]["top_logprobs"].as_array().unwrap().len() == 2, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ollama_s_api_is_spoken_as_it_is_documented() {
    let _turn = share();
    let node = Node::start(&[("smollm2", &small())], &["--context", "1024", "--threads", "1"]);
    let ollama = Ollama::start(&node.url(), "smollm2").await;
    let server = Server::start(&script(|more| {
        format!("tw.ollama {{ url = \"{}\", model = \"smollm2\"{more} }}", ollama.url)
    }));
    works_as_everything(&server).await;
    let asked = ollama.asked.lock().unwrap().clone();
    let of = |path: &str| {
        asked.iter().filter(|(own, _)| own == path).map(|(_, body)| body.clone()).collect::<Vec<_>>()
    };
    let chats = of("/api/chat");
    assert!(
        chats.iter().all(|body| body["stream"] == true && body["options"]["num_predict"] == 16),
        "{chats:?}"
    );
    let drafts = of("/api/generate");
    assert!(
        drafts.iter().all(|body| body["stream"] == false && body["options"]["temperature"] == 0),
        "{drafts:?}"
    );
    // The target's chat template is written out.
    assert!(drafts[0]["prompt"].as_str().unwrap().contains("<|im_start|>assistant"), "{}", drafts[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_the_probabilities_of_a_prompt_verifies_in_one_pass() {
    let _turn = share();
    let vllm = Vllm::start().await;
    let script = format!(
        r#"local tw = require "tightwad"
local here = tw.model {{ path = "{0}", name = "here", context = 1024, threads = 1 }}
local small = tw.model {{ path = "{1}", name = "small", context = 1024, threads = 1 }}
local server = tw.openai {{ url = "{2}", verify = "logprobs", tokenizer = "{0}" }}
return tw.serve {{ models = {{
  here = here,
  lookup = tw.speculation {{ target = server, draft = tw.lookup {{}}, settings = {{ fixed_draft = 6 }} }},
  small = tw.speculation {{ target = server, draft = small, settings = {{ fixed_draft = 3 }} }},
  free = tw.speculation {{ target = server, draft = {{ tw.lookup {{}}, small }} }},
}} }}"#,
        small().display(),
        small_drafter().display(),
        vllm.url
    );
    let server = Server::start(&script);
    let (mut drafted, mut accepted) = (0, 0);
    for prompt in &PROMPTS[..4] {
        let (here, _) = server.ask("here", prompt, json!({"temperature": 0})).await;
        for model in ["lookup", "small", "free"] {
            let (text, report) = server.ask(model, prompt, json!({"temperature": 0})).await;
            assert_eq!(text, here, "{model}: {report}");
            assert!(report["fallback"].is_null(), "{report}");
            drafted += report["drafted"].as_u64().unwrap();
            accepted += report["accepted"].as_u64().unwrap();
        }
    }
    assert!(accepted > 20, "{accepted} of {drafted} accepted");
    let asked = vllm.asked.lock().unwrap().clone();
    assert!(asked.iter().any(|body| body["prompt_logprobs"] == 1 && body["max_tokens"] == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused_with_the_way_out() {
    let _turn = share();
    let node = Node::start(&[("smollm2", &small())], &["--context", "1024", "--threads", "1"]);
    let refused = |line: &str| {
        let text = format!(
            "local tw = require \"tightwad\"\nlocal s = tw.openai {{ url = \"{}\" }}\n{line}",
            node.url()
        );
        let script = Script::new(&text);
        let done = tightwad(&["run", &script.path().display().to_string(), "--check"]);
        assert_eq!(done.status.code(), Some(1));
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    for (line, words) in [
        (
            "tw.speculation { target = s, draft = tw.lookup {} }",
            "script.lua:3: 'smollm2' cannot verify drafts",
        ),
        ("tw.openai { url = \"http://127.0.0.1:1\" }", "127.0.0.1:1 does not answer"),
        ("tw.openai { url = \"127.0.0.1:1\" }", "'url' must begin with http://"),
        (
            "tw.ollama { url = \"http://127.0.0.1:1\", verify = \"guess\" }",
            "'verify' in tw.ollama can be \"replay\"",
        ),
        ("tw.openai { url = s }", "'url' in tw.openai must be a string"),
        ("tw.openai { url = \"http://127.0.0.1:1\", verify = \"logprobs\" }", "needs 'tokenizer'"),
        ("tw.node { url = \"http://127.0.0.1:1\", fallbck = s }", "did you mean 'fallback'?"),
    ] {
        let error = refused(line);
        assert!(error.contains(words), "{line}\n'{words}' is not in: {error}");
    }
    let error = refused(&format!("tw.openai {{ url = \"{}\", model = \"big\" }}", node.url()));
    assert!(error.contains("has no model 'big'; it has: smollm2"), "{error}");
    let error = refused(&format!("tw.node {{ url = \"{}\", fallback = s }}", node.url()));
    assert!(error.contains("cannot stand by for 'smollm2'"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the large models"]
async fn two_vocabularies_are_refused_unless_text_is_translated_and_then_it_is_exact() {
    let _turn = alone();
    let stack = |more: &str| {
        format!(
            r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "smollm2", context = 1024, slots = 2 }}
local other = tw.model {{ path = "{}", name = "qwen", context = 1024, slots = 2 }}
return tw.serve {{ models = {{
  plain = target, fast = tw.speculation {{ target = target, draft = other{more} }},
}} }}"#,
            smollm2().display(),
            model("qwen2.5-coder-0.5b-instruct.gguf").display()
        )
    };
    let script = Script::new(&stack(""));
    let done = tightwad(&["run", &script.path().display().to_string(), "--check"]);
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(error.contains("'qwen' has another vocabulary than 'smollm2'"), "{error}");
    assert!(error.contains("translate = true"), "{error}");
    let server = Server::start(&stack(", translate = true, settings = { fixed_draft = 4 }"));
    let mut accepted = 0;
    for settings in settings() {
        for prompt in &PROMPTS[1..4] {
            let (plain, _) = server.ask("plain", prompt, settings.clone()).await;
            let (fast, report) = server.ask("fast", prompt, settings.clone()).await;
            assert_eq!(fast, plain, "{settings}: {report}");
            accepted += report["accepted"].as_u64().unwrap();
        }
    }
    assert!(accepted > 0, "nothing that was translated was ever accepted");
}
