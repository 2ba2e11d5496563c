//! Builds the request bodies of text servers.

use serde_json::{Map, Value, json};
use tightwad_core::{Continuation, Format, Prompt, Request, SamplingSpec, ToolChoice};

use crate::dialect::{Dialect, number};

/// Path and body of a request for a whole, streamed answer.
pub(crate) fn generation_request(dialect: Dialect, model: &str, request: &Request) -> (&'static str, Value) {
    match dialect {
        Dialect::Ollama => ollama(model, request),
        Dialect::LlamaServer | Dialect::OpenAi => openai(dialect, model, request),
    }
}

fn messages(request: &Request) -> Option<Value> {
    match &request.prompt {
        Prompt::Text(_) => None,
        Prompt::Chat(messages) => {
            Some(messages.iter().map(|message| Value::Object(message.0.clone())).collect())
        }
    }
}

fn prompt_text(request: &Request) -> &str {
    match &request.prompt {
        Prompt::Text(text) => text,
        Prompt::Chat(_) => "",
    }
}

fn openai(dialect: Dialect, model: &str, request: &Request) -> (&'static str, Value) {
    let mut body = Map::new();
    let mut set = |key: &str, value: Value| drop(body.insert(key.to_owned(), value));
    set("model", model.into());
    set("stream", true.into());
    set("stream_options", json!({"include_usage": true}));
    sampling(dialect, request, &mut set);
    response_format(request, &mut set);
    let chat = messages(request);
    if let Some(top) = request.sampling.logprobs {
        set("logprobs", if chat.is_some() { true.into() } else { top.into() });
        if chat.is_some() {
            set("top_logprobs", top.into());
        }
    }
    if chat.is_some() && !request.tools.is_empty() {
        set("tools", request.tools.iter().map(|tool| tool.definition.clone()).collect());
        set("tool_choice", tool_choice(&request.tool_choice));
    }
    let path = match chat {
        Some(messages) => {
            chat_options(dialect, request, &mut set);
            set("messages", messages);
            "/v1/chat/completions"
        }
        None => {
            set("prompt", prompt_text(request).into());
            "/v1/completions"
        }
    };
    dialect.add_own_settings(&mut body, request);
    (path, Value::Object(body))
}

/// Sets the sampling fields and the limits of the answer.
///
/// A setting with OpenAI's default is left out, because some servers refuse fields that they do not know.
/// llama-server has other defaults and therefore receives every setting.
fn sampling(dialect: Dialect, request: &Request, set: &mut impl FnMut(&str, Value)) {
    let (sampling, default) = (&request.sampling, SamplingSpec::default());
    for (key, value, default) in [
        ("temperature", sampling.temperature, default.temperature),
        ("top_p", sampling.top_p, default.top_p),
        ("presence_penalty", sampling.presence_penalty, default.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty, default.frequency_penalty),
    ] {
        if value != default || dialect == Dialect::LlamaServer {
            set(key, number(value));
        }
    }
    if !sampling.seed_is_random {
        set("seed", (sampling.seed & i64::MAX.cast_unsigned()).into());
    }
    if let Some(max_tokens) = request.max_tokens {
        set("max_tokens", max_tokens.into());
    }
    if !request.stop.is_empty() {
        set("stop", json!(*request.stop));
    }
    if !sampling.logit_bias.is_empty() {
        let biases = sampling.logit_bias.iter().map(|(token, bias)| (token.to_string(), number(*bias)));
        set("logit_bias", Value::Object(biases.collect()));
    }
}

/// Sets the response format.
fn response_format(request: &Request, set: &mut impl FnMut(&str, Value)) {
    match &request.format {
        Format::Text | Format::Grammar(_) => {}
        Format::JsonObject => set("response_format", json!({"type": "json_object"})),
        Format::JsonSchema(schema) => {
            let named = json!({"name": "answer", "schema": schema, "strict": true});
            set("response_format", json!({"type": "json_schema", "json_schema": named}));
        }
    }
}

/// Sets the options of the chat template. vLLM, SGLang and llama-server know these fields. OpenAI's own is
/// `reasoning_effort`.
fn chat_options(dialect: Dialect, request: &Request, set: &mut impl FnMut(&str, Value)) {
    let mut variables = request.chat.variables.as_ref().clone();
    if let Some(effort) = variables.remove("reasoning_effort") {
        set("reasoning_effort", effort);
    }
    if !variables.is_empty() {
        set("chat_template_kwargs", Value::Object(variables));
    }
    if !request.chat.add_generation_prompt {
        set("add_generation_prompt", false.into());
    }
    match request.chat.continuation {
        None => {}
        Some(_) if dialect != Dialect::LlamaServer => set("continue_final_message", true.into()),
        Some(Continuation::Auto) => set("continue_final_message", true.into()),
        Some(Continuation::Content) => set("continue_final_message", "content".into()),
        Some(Continuation::Reasoning) => set("continue_final_message", "reasoning_content".into()),
    }
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => json!({"type": "function", "function": {"name": name}}),
    }
}

fn ollama(model: &str, request: &Request) -> (&'static str, Value) {
    let sampling = &request.sampling;
    let mut options = json!({
        "temperature": number(sampling.temperature), "top_p": number(sampling.top_p), "top_k": sampling.top_k,
        "min_p": number(sampling.min_p), "seed": sampling.seed & u64::from(u32::MAX >> 1),
        "repeat_penalty": number(sampling.repeat_penalty),
        "presence_penalty": number(sampling.presence_penalty),
        "frequency_penalty": number(sampling.frequency_penalty),
    });
    if let Some(max_tokens) = request.max_tokens {
        options["num_predict"] = max_tokens.into();
    }
    if !request.stop.is_empty() {
        options["stop"] = json!(*request.stop);
    }
    let mut body = json!({"model": model, "stream": true, "options": options});
    match &request.format {
        Format::Text | Format::Grammar(_) => {}
        Format::JsonObject => body["format"] = "json".into(),
        Format::JsonSchema(schema) => body["format"] = Value::clone(schema),
    }
    if !request.tools.is_empty() && request.tool_choice != ToolChoice::None {
        body["tools"] = request.tools.iter().map(|tool| tool.definition.clone()).collect();
    }
    match messages(request) {
        Some(messages) => {
            body["messages"] = messages;
            ("/api/chat", body)
        }
        None => {
            body["prompt"] = prompt_text(request).into();
            body["raw"] = true.into();
            ("/api/generate", body)
        }
    }
}

#[cfg(test)]
mod tests {
    use tightwad_core::Sampling;

    use super::*;

    fn request(spec: SamplingSpec) -> Request {
        Request { sampling: Sampling::new(spec).unwrap(), ..Request::default() }
    }

    #[test]
    fn openai_body_has_only_settings_that_differ_from_the_defaults() {
        let plain = request(SamplingSpec { seed: 5, seed_is_random: true, ..SamplingSpec::default() });
        let (_, body) = generation_request(Dialect::OpenAi, "m", &plain);
        let expected =
            json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}, "prompt": ""});
        assert_eq!(body, expected);
    }

    #[test]
    fn numbers_are_written_as_the_client_sent_them() {
        let spec = SamplingSpec {
            temperature: 0.7,
            top_p: 0.95,
            presence_penalty: -0.3,
            logit_bias: vec![(5, 1.1)],
            seed: 9,
            ..SamplingSpec::default()
        };
        let (_, body) = generation_request(Dialect::OpenAi, "m", &request(spec.clone()));
        assert_eq!(body["temperature"].to_string(), "0.7");
        assert_eq!(body["top_p"].to_string(), "0.95");
        assert_eq!(body["presence_penalty"].to_string(), "-0.3");
        assert_eq!(body["logit_bias"].to_string(), r#"{"5":1.1}"#);
        assert_eq!(body["seed"], 9);
        let (_, body) = generation_request(Dialect::Ollama, "m", &request(spec));
        assert_eq!(body["options"]["temperature"].to_string(), "0.7");
    }

    #[test]
    fn llama_server_receives_every_setting() {
        let (_, body) = generation_request(Dialect::LlamaServer, "m", &Request::default());
        for key in ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "frequency_penalty"] {
            assert!(body.get(key).is_some(), "{key} is missing, and llama-server has another default");
        }
    }
}
