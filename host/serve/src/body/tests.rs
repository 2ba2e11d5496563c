use axum::response::IntoResponse;
use tightwad_core::{Prompt, ToolChoice};
use tightwad_net::http::ApiError;

use crate::body::checked;
use crate::body::checked::CheckedRequest;
use crate::body::fields::RequestBody;

fn chat(json: &str) -> Result<CheckedRequest, ApiError> {
    checked::chat(RequestBody::parse(json.as_bytes())?, "id")
}

fn refusal(json: &str) -> String {
    let error = chat(json).unwrap_err();
    assert_eq!(error.clone().into_response().status(), 400);
    error.object()["error"].to_string()
}

#[test]
fn request_has_the_defaults_of_openai() {
    let checked =
        chat(r#"{"model": "m", "messages": [{"role": "user", "content": "hi"}], "seed": 5, "n": 2}"#)
            .unwrap();
    assert_eq!(checked.requests.len(), 2);
    let sampling = &checked.requests[1].sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.seed), (1.0, 1.0, 6));
    assert!(!checked.stream);
}

#[test]
fn messages_join_parts_and_map_developer_to_system() {
    let checked = chat(
        r#"{"model": "m", "messages": [{"role": "developer", "content":
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}"#,
    );
    let Prompt::Chat(messages) = &checked.unwrap().requests[0].prompt else { panic!("a chat") };
    assert_eq!(messages[0].0["role"], "system");
    assert_eq!(messages[0].0["content"], "ab");
}

#[test]
fn error_names_the_field() {
    for (json, field, words) in [
        (r#"{"model": "m", "messages": [], "temperature": "hot"}"#, "temperature", "expected f32"),
        (r#"{"model": "m", "messages": [], "max_tokens": -1}"#, "max_tokens", "-1"),
        (r#"{"model": "m", "messages": []}"#, "messages", "empty"),
        (r#"{"model": "m", "messages": [{"role": "robot"}]}"#, "messages[0].role", "robot"),
        (
            r#"{"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#,
            "messages[0].content",
            "image_url",
        ),
        (r#"{"model": "m"}"#, "messages", "missing"),
        (r#"{"model": "m", "messages": [{"role": "user", "content": "x"}], "stop": [""]}"#, "stop", "empty"),
        (
            r#"{"model": "m", "messages": [{"role": "user", "content": "x"}], "top_p": 2}"#,
            "top_p",
            "at most 1",
        ),
        (r#"{"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 9}"#, "n", "choices"),
        (
            r#"{"model": "m", "messages": [{"role": "user", "content": "x"}], "tool_choice": "required"}"#,
            "tool_choice",
            "no 'tools'",
        ),
    ] {
        let refusal = refusal(json);
        assert!(refusal.contains(&format!("\"param\":\"{field}\"")), "{json}: {refusal}");
        assert!(refusal.contains(words), "{json}: {refusal}");
    }
}

#[test]
fn malformed_json_error_names_the_line() {
    assert!(refusal("{\"model\": \"m\",\n x}").contains("line 2"));
    assert!(RequestBody::parse(b"{\"model\": \"\xff\"}").is_err());
    assert!(refusal("[]").contains("not a request"));
}

#[test]
fn tool_call_arguments_become_objects() {
    let checked = chat(
        r#"{"model": "m", "messages": [{"role": "assistant", "content": null, "tool_calls":
            [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}}}"#,
    );
    let checked = checked.unwrap();
    let Prompt::Chat(messages) = &checked.requests[0].prompt else { panic!("a chat") };
    assert_eq!(messages[0].0["tool_calls"][0]["function"]["arguments"]["x"], 1);
    assert_eq!(checked.requests[0].tool_choice, ToolChoice::Named("f".to_owned()));
}
