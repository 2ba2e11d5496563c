//! Templates in this process.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Map, Value, json};
use tightwad_chat::{ChatError, Conversation, Template};
use tightwad_core::{ChatOptions, Continuation};

fn template(source: &str) -> Template {
    Template { source: source.to_owned(), tool_source: None, bos: "<s>".to_owned(), eos: "</s>".to_owned() }
}

fn render(template: &Template, messages: &Value, tools: &Value, options: &ChatOptions) -> String {
    template.render(&Conversation { messages, tools, options, max_bytes: 1 << 20 }).unwrap()
}

fn options(variables: &Value) -> ChatOptions {
    let variables: Map<String, Value> = variables.as_object().unwrap().clone();
    ChatOptions { variables: variables.into(), ..ChatOptions::default() }
}

const CHAT: &str = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";

#[test]
fn conversation_is_rendered_with_its_special_tokens() {
    let messages =
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2<3 & 'é' 😀"}]);
    let text = render(&template(CHAT), &messages, &Value::Null, &ChatOptions::default());
    assert_eq!(text, "<s>[system]Be brief.</s>[user]2<3 & 'é' 😀</s>[assistant]");
    let options = ChatOptions { add_generation_prompt: false, ..ChatOptions::default() };
    let text = render(&template(CHAT), &messages, &Value::Null, &options);
    assert_eq!(text, "<s>[system]Be brief.</s>[user]2<3 & 'é' 😀</s>");
}

#[test]
fn variables_are_those_of_the_client() {
    let source = "{% for m in messages %}{{ m.content }}{% endfor %}{{ enable_thinking is defined }}{{ date_string is defined }}|{{ enable_thinking }}|{{ level }}";
    let messages = json!([{"role": "user", "content": "x"}]);
    let plain = render(&template(source), &messages, &Value::Null, &ChatOptions::default());
    assert!(plain.starts_with("xFalseFalse|"), "{plain}");
    let given = options(&json!({"enable_thinking": false, "level": "high"}));
    let text = render(&template(source), &messages, &Value::Null, &given);
    assert!(text.starts_with("xTrueFalse|False|high"), "{text}");
}

#[test]
fn tools_keep_their_order_and_their_text() {
    let source =
        "{% for m in messages %}{{ m.content }}{% endfor %}{% for t in tools %}{{ t | tojson }}{% endfor %}";
    let messages = json!([{"role": "user", "content": "x"}]);
    let tools = json!([{"type": "function", "function": {"name": "f", "description": "a <b> & 'c'", "parameters": {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "string"}}}}}]);
    let text = render(&template(source), &messages, &tools, &ChatOptions::default());
    assert_eq!(
        text,
        r#"x{"type": "function", "function": {"name": "f", "description": "a <b> & 'c'", "parameters": {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "string"}}}}}"#
    );
}

#[test]
fn fields_of_tools_are_those_of_the_client() {
    let source =
        "{% for m in messages %}{{ m.content }}{% endfor %}{% for t in tools %}{{ t | tojson }}{% endfor %}";
    let messages = json!([{"role": "user", "content": "x"}]);
    let tools = json!([{"type": "function", "function": {"name": "f", "strict": true}}]);
    let text = render(&template(source), &messages, &tools, &ChatOptions::default());
    assert_eq!(text, r#"x{"type": "function", "function": {"name": "f", "strict": true}}"#);
}

#[test]
fn template_for_tools_renders_conversations_with_tools() {
    let mut template = template(CHAT);
    template.tool_source =
        Some("{% for m in messages %}{{ m.content }}{% endfor %} with {{ tools | length }} tool".to_owned());
    let messages = json!([{"role": "user", "content": "x"}]);
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let options = ChatOptions::default();
    assert_eq!(render(&template, &messages, &tools, &options), "x with 1 tool");
    assert_eq!(render(&template, &messages, &json!([]), &options), "<s>[user]x</s>[assistant]");
}

#[test]
fn answer_of_the_last_message_is_continued() {
    let messages =
        json!([{"role": "user", "content": "Count to five."}, {"role": "assistant", "content": "One, two,"}]);
    let options = ChatOptions {
        continuation: Some(Continuation::Auto),
        add_generation_prompt: false,
        ..ChatOptions::default()
    };
    let text = render(&template(CHAT), &messages, &Value::Null, &options);
    assert_eq!(text, "<s>[user]Count to five.</s>[assistant]One, two,");
}

#[test]
fn facts_are_found_by_trial() {
    let facts = template(CHAT).inspect().unwrap();
    assert!(!facts.tools && !facts.thinking, "{facts:?}");
    let with_tools = "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";
    assert!(template(with_tools).inspect().unwrap().tools);
    assert!(matches!(template("{% if %}").inspect(), Err(ChatError::Broken(_))));
}

/// Clients send back the fields of answers, with nulls.
#[test]
fn nulls_and_missing_fields_are_accepted() {
    let source = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}{% endfor %}";
    let messages = json!([
        {"role": "user", "content": "x", "name": null},
        {"role": "assistant", "content": null, "reasoning_content": null, "tool_calls": [
            {"id": null, "function": {"name": "f", "arguments": null}}]},
        {"role": "tool", "content": "y", "tool_call_id": null},
        {"role": "assistant", "content": "z", "tool_calls": []}
    ]);
    assert_eq!(render(&template(source), &messages, &Value::Null, &ChatOptions::default()), "xfyz");
}

#[test]
fn schemas_of_tools_are_not_checked() {
    let source = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools | length }}";
    let messages = json!([{"role": "user", "content": "x"}]);
    let schema = json!({"type": "object", "properties": {"a": {"type": "any"}, "b": true, "c": {"$ref": "#"}, "d": {"enum": []}}});
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": schema}}]);
    assert_eq!(render(&template(source), &messages, &tools, &ChatOptions::default()), "x1");
}
