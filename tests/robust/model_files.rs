//! Unknown model files.

use serde_json::json;
use tightwad_zoo::GgufFile;

use crate::support::{Script, Server, one_core, small_model_content, tightwad};

/// A script that serves `edit`ed content of the small model as `m`.
fn script(edit: impl FnOnce(&mut GgufFile)) -> Script {
    let script = Script::new("");
    let path = script.folder().join("model.gguf");
    let mut content = small_model_content();
    edit(&mut content);
    content.write(&path).unwrap();
    script.write(&format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ m = tw.model {{ path = \"{}\", name = \"m\", context = 512, threads = 1 }} }} }}",
        path.display()
    ));
    script
}

/// A change of a file.
type Edit = fn(&mut GgufFile);

#[tokio::test(flavor = "multi_thread")]
async fn unusable_template_is_reported_before_the_first_chat_and_completions_work() {
    let _permit = one_core();
    let edits: [(Edit, &str); 2] = [
        (|content| content.remove("tokenizer.chat_template"), "this model has no chat template"),
        (
            |content| content.set_text("tokenizer.chat_template", "{% if %}"),
            "this model's chat template does not compile",
        ),
    ];
    for (edit, reason) in edits {
        let script = script(edit);
        let path = script.path().display().to_string();
        let checked = tightwad(&["run", &path, "--check"]);
        let output = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success() && output.contains(&format!("warning: m: {reason}")), "{output}");
        let examined = tightwad(&["doctor", &path, "--discovery-time", "0"]);
        let output = String::from_utf8_lossy(&examined.stdout);
        assert!(output.contains(&format!("warn  chat template: m: {reason}")), "{output}");
        let server = Server::start(&std::fs::read_to_string(script.path()).unwrap());
        assert!(server.log_text().contains(reason), "{}", server.log_text());
        let chat = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
        let (status, answer) = server.post("/v1/chat/completions", &chat).await;
        assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains(reason), "{answer}");
        let completion = json!({"model": "m", "prompt": "One", "max_tokens": 3});
        assert_eq!(server.post("/v1/completions", &completion).await.0, 200);
    }
}

#[test]
fn host_refuses_a_file_that_llama_cpp_cannot_load() {
    let edits: [(Edit, &str); 2] = [
        (
            |content| content.set_text("general.architecture", "foreign"),
            "unknown model architecture: 'foreign'",
        ),
        (|content| content.set_text("general.architecture", "bert"), "it is an embedding model"),
    ];
    for (edit, reason) in edits {
        let checked = tightwad(&["run", &script(edit).path().display().to_string(), "--check"]);
        let error = String::from_utf8_lossy(&checked.stderr);
        assert_eq!(checked.status.code(), Some(1), "{error}");
        assert!(error.contains(reason) && !error.contains("ownload it again"), "{error}");
    }
}
