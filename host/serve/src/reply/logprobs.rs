//! Log-probabilities in the forms of the two endpoints.

use serde_json::{Map, Value, json};
use tightwad_core::TextLogprobs;

use crate::endpoint::Endpoint;

/// The `logprobs` of a choice; null if the request asks for none.
pub(crate) fn object(endpoint: Endpoint, entries: &[TextLogprobs], offset: usize) -> Value {
    if entries.is_empty() {
        return Value::Null;
    }
    match endpoint {
        Endpoint::Chat => json!({"content": entries.iter().map(chat).collect::<Vec<_>>(), "refusal": null}),
        Endpoint::Completion => completion(entries, offset),
    }
}

fn chat(entry: &TextLogprobs) -> Value {
    let object_of = |bytes: &[u8], logprob: f32| json!({"token": String::from_utf8_lossy(bytes), "logprob": logprob, "bytes": bytes});
    let mut object = object_of(&entry.bytes, entry.logprob);
    object["top_logprobs"] = entry.top.iter().map(|(bytes, logprob)| object_of(bytes, *logprob)).collect();
    object
}

fn completion(entries: &[TextLogprobs], mut offset: usize) -> Value {
    let mut tokens = Vec::new();
    let mut offsets = Vec::new();
    for entry in entries {
        let token = String::from_utf8_lossy(&entry.bytes).into_owned();
        offsets.push(offset);
        offset += token.chars().count();
        tokens.push(token);
    }
    let top = |entry: &TextLogprobs| {
        let pair =
            |(bytes, logprob): &(Vec<u8>, f32)| (String::from_utf8_lossy(bytes).into_owned(), json!(logprob));
        Value::Object(entry.top.iter().map(pair).collect::<Map<_, _>>())
    };
    json!({
        "tokens": tokens,
        "token_logprobs": entries.iter().map(|entry| entry.logprob).collect::<Vec<_>>(),
        "top_logprobs": entries.iter().map(top).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}
