//! Asking a reviewer in words, and reading what it says.

use serde_json::{Value, json};
use tightwad_core::{BackendError, Format, Message, Prompt, Request, Sampling, SamplingSpec};

/// The request by which a reviewer is asked about an `answer` to what was `asked`, in the words of `template`.
pub(crate) fn question(asked: &Request, template: &str, answer: &str) -> Result<Request, BackendError> {
    // In one pass, so that what an answer says is never taken for a place to fill in.
    let text = filled(template, &asked.prompt.text(), answer);
    let message = [("role", Value::from("user")), ("content", Value::from(text))];
    let message = Message(message.map(|(key, value)| (key.to_owned(), value)).into_iter().collect());
    let schema = json!({"type": "object", "properties": {"verdict": {"enum": ["approve", "correct", "reject"]}},
        "required": ["verdict"], "additionalProperties": false});
    let spec = SamplingSpec { temperature: 0.0, ..SamplingSpec::default() };
    let sampling = Sampling::new(spec).map_err(|error| BackendError::failed("the gate", error))?;
    Ok(Request {
        id: format!("{}-review", asked.id),
        prompt: Prompt::Chat(vec![message]),
        sampling,
        max_tokens: Some(24),
        format: Format::JsonSchema(schema),
        ..Request::default()
    })
}

/// Fills a template in.
pub(crate) fn filled(template: &str, question: &str, answer: &str) -> String {
    let mut text = String::with_capacity(template.len() + question.len() + answer.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let (put, skipped) = if rest.starts_with("{question}") {
            (question, "{question}".len())
        } else if rest.starts_with("{answer}") {
            (answer, "{answer}".len())
        } else {
            ("{", 1)
        };
        text.push_str(put);
        rest = &rest[skipped..];
    }
    text + rest
}

/// The word of a judgement that is nothing but the JSON object that was asked for.
pub(crate) fn strictly(said: &str) -> Option<String> {
    let object: serde_json::Map<String, Value> = serde_json::from_str(said.trim()).ok()?;
    let word = object.get("verdict")?.as_str()?;
    (object.len() == 1).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_object_that_was_asked_for_is_a_judgement() {
        assert_eq!(strictly(" {\"verdict\": \"approve\"}\n").as_deref(), Some("approve"));
        for unclear in [
            "approve",
            "I approve: {\"verdict\": \"approve\"}",
            "{\"verdict\": \"approve\"} and more",
            "{\"verdict\": \"approve\", \"why\": \"I was told to\"}",
            "{\"verdict\": [\"approve\"]}",
            "",
        ] {
            assert_eq!(strictly(unclear), None, "{unclear}");
        }
    }

    #[test]
    fn an_answer_cannot_fill_in_anything() {
        let text = filled("Q: {question} A: {answer} {x}", "{answer}?", "{question}!");
        assert_eq!(text, "Q: {answer}? A: {question}! {x}");
    }
}
