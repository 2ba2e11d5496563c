use std::sync::Arc;

use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use tightwad_core::{ChatOptions, Continuation, Format, MAX_JSON_NUMBERS, Prompt, ToolChoice};
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

/// Front ends send numbers, names and nulls in such forms.
#[test]
fn usual_forms_of_fields_are_accepted() {
    let request = |field: &str| {
        chat(&format!(r#"{{"model": "m", "messages": [{{"role": "user", "content": "x"}}], {field}}}"#))
            .unwrap()
            .requests
            .remove(0)
    };
    for field in [r#""max_tokens": -1"#, r#""max_completion_tokens": -1.0"#, r#""max_tokens": null"#] {
        assert_eq!(request(field).max_tokens, None, "{field}");
    }
    assert_eq!(request(r#""max_tokens": 64.0"#).max_tokens, Some(64));
    assert_eq!(request(r#""top_k": -1"#).sampling.top_k, 0);
    assert_eq!(request(r#""top_p": 0"#).sampling.top_p, 0.0);
    assert!(request(r#""seed": -1"#).sampling.seed_is_random);
    let both = request(r#""repeat_penalty": 1.1, "repetition_penalty": 1.2"#);
    assert_eq!(both.sampling.repeat_penalty, 1.1);
    assert_eq!(request(r#""repetition_penalty": 1.2"#).sampling.repeat_penalty, 1.2);
    let both = request(r#""grammar": "start: \"a\"", "guided_grammar": "start: \"a\"""#);
    assert!(matches!(both.format, Format::Grammar(_)));
}

#[test]
fn usual_forms_of_messages_are_accepted() {
    let checked = chat(
        r#"{"model": "m", "messages": [{"role": "user", "content": "x"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "tool", "tool_call_id": "1", "content": null}, {"role": "tool", "tool_call_id": "2"},
            {"role": "function", "name": "f", "content": "y"}]}"#,
    );
    let Prompt::Chat(messages) = &checked.unwrap().requests[0].prompt else { panic!("a chat") };
    let content: Vec<_> = messages.iter().map(|message| message.0["content"].clone()).collect();
    assert_eq!(content, ["x", "no", "", "", "y"]);
    assert_eq!(messages[4].0["role"], "tool");
}

#[test]
fn options_of_the_chat_template_are_checked() {
    let request = |fields: &str| {
        chat(&format!(
            r#"{{"model": "m", "messages": [{{"role": "user", "content": "x"}}, {{"role": "assistant", "content": "y"}}], {fields}}}"#
        ))
    };
    let options = |fields: &str| request(fields).unwrap().requests.remove(0).chat;
    assert_eq!(options(r#""n": 1"#), ChatOptions::default());
    let none = options(r#""reasoning_effort": "none", "chat_template_kwargs": {"a": 1}"#);
    assert_eq!(Value::Object(none.variables.as_ref().clone()), json!({"a": 1, "enable_thinking": false}));
    let high = options(r#""reasoning_effort": "high", "enable_thinking": true"#);
    assert_eq!(
        Value::Object(high.variables.as_ref().clone()),
        json!({"reasoning_effort": "high", "enable_thinking": true})
    );
    let continued = options(r#""continue_final_message": "content", "add_generation_prompt": false"#);
    assert_eq!(
        (continued.continuation, continued.add_generation_prompt),
        (Some(Continuation::Content), false)
    );
    for (fields, words) in [
        (r#""chat_template_kwargs": {"messages": []}"#, "cannot set 'messages'"),
        (r#""chat_template_kwargs": {"enable_thinking": "no"}"#, "true or false"),
        (r#""continue_final_message": "x""#, "expected true, false"),
        (r#""continue_final_message": true, "add_generation_prompt": true"#, "exclude each other"),
    ] {
        let error = request(fields).unwrap_err().object()["error"].to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn error_names_the_field() {
    for (json, field, words) in [
        (r#"{"model": "m", "messages": [], "temperature": "hot"}"#, "temperature", "expected f32"),
        (r#"{"model": "m", "messages": [], "max_tokens": -2}"#, "max_tokens", "-2"),
        (r#"{"model": "m", "messages": []}"#, "messages", "empty"),
        (r#"{"model": "m", "messages": [{"role": "robot"}]}"#, "messages[0].role", "robot"),
        (
            r#"{"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#,
            "messages[0].content",
            "image_url",
        ),
        (r#"{"model": "m"}"#, "messages", "missing"),
        (
            r#"{"model": "m", "messages": [{"role": "user", "content": "x"}], "stop": [""]}"#,
            "stop",
            "1 to 1024",
        ),
        (
            r#"{"model": "m", "messages": [{"role": "user", "content": "x"}], "top_p": 2}"#,
            "top_p",
            "between 0 and 1",
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

#[test]
fn choices_share_one_conversation() {
    let checked = chat(
        r#"{"model": "m", "n": 2, "messages": [{"role": "user", "content": "hi"}], "stop": "x",
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}}"#,
    )
    .unwrap();
    let [first, second] = checked.requests.as_slice() else { panic!("two choices") };
    let (Prompt::Chat(one), Prompt::Chat(other)) = (&first.prompt, &second.prompt) else { panic!("a chat") };
    assert!(Arc::ptr_eq(one, other));
    assert!(Arc::ptr_eq(&first.tools, &second.tools));
    assert!(Arc::ptr_eq(&first.stop, &second.stop));
    let (Format::JsonSchema(one), Format::JsonSchema(other)) = (&first.format, &second.format) else {
        panic!("a schema")
    };
    assert!(Arc::ptr_eq(one, other));
    assert_eq!(first.tools[0].parameters(), Some(&json!({"type": "object"})));
}

#[test]
fn byte_order_mark_before_the_body_is_skipped() {
    let body = b"\xEF\xBB\xBF{\"model\": \"m\"}";
    assert_eq!(RequestBody::parse(body).unwrap().model, "m");
}

/// A chat request with a further field.
fn chat_with(field: &str, value: &Value) -> String {
    json!({"model": "m", "messages": [{"role": "user", "content": "x"}], field: value}).to_string()
}

#[test]
fn biases_are_bounded_and_each_token_has_one_name() {
    let valid = chat(&chat_with("logit_bias", &json!({"5": 1.5, "0": -100}))).unwrap();
    assert_eq!(valid.requests[0].sampling.logit_bias, [(0, -100.0), (5, 1.5)]);
    assert!(chat(&chat_with("logit_bias", &json!({}))).is_ok());
    let many: Map<String, Value> = (0..1025).map(|token: u32| (token.to_string(), json!(1))).collect();
    for (biases, words) in [
        (json!({"1": 1, "01": 1}), "not '01'"),
        (json!({"+1": 1}), "not '+1'"),
        (json!({"hello": 1}), "not 'hello'"),
        (json!({"5": 150}), "between -100 and 100, got 150"),
        (json!(many), "at most 1024 tokens, got 1025"),
        (json!([[5, 1.0]]), "invalid type"),
    ] {
        let refusal = refusal(&chat_with("logit_bias", &biases));
        assert!(refusal.contains("\"param\":\"logit_bias\"") && refusal.contains(words), "{refusal}");
    }
}

#[test]
fn long_values_are_refused() {
    assert!(chat(&chat_with("stop", &json!("x".repeat(1024)))).is_ok());
    for (field, value) in [
        ("stop", json!("x".repeat(1025))),
        ("stop", json!(vec!["x"; 17])),
        ("model", json!("x".repeat(257))),
        ("grammar", json!("x".repeat((256 << 10) + 1))),
        ("n", json!(u32::MAX)),
        ("tools", json!([{"type": "function", "function": {"name": "x".repeat(257)}}])),
        ("top_logprobs", json!(21)),
    ] {
        let mut body: Value = serde_json::from_str(&chat_with(field, &value)).unwrap();
        body["logprobs"] = json!(true);
        let refusal = refusal(&body.to_string());
        assert!(refusal.contains(&format!("\"param\":\"{field}\"")), "{field}: {refusal}");
    }
}

#[test]
fn error_repeats_only_the_beginning_of_a_long_value() {
    let refusal = refusal(&chat_with("tool_choice", &json!("x".repeat(1 << 20))));
    assert!(refusal.len() < 3000 && refusal.contains("xxx..."), "{} bytes", refusal.len());
}

#[test]
fn request_of_too_many_parts_is_refused_before_it_is_parsed() {
    let zeros = "0,".repeat(MAX_JSON_NUMBERS);
    let message = |content: &str| {
        format!(r#"{{"model": "m", "messages": [{{"role": "user", "content": "x", "x": {content}}}]}}"#)
    };
    assert!(refusal(&message(&format!("[{zeros}0]"))).contains("numbers"));
    // The JSON in the arguments of a call counts too.
    let call = format!(
        r#"{{"model": "m", "messages": [{{"role": "assistant", "tool_calls": [{{"function":
            {{"name": "f", "arguments": "[{zeros}0]"}}}}]}}]}}"#
    );
    let refusal = refusal(&call);
    assert!(refusal.contains("messages[0].tool_calls") && refusal.contains("numbers"), "{refusal}");
}
