//! Asks a reviewer in words for its judgement, and parses the reply.

use serde_json::{Value, json};
use tightwad_core::{BackendError, Format, Message, Prompt, Request, Sampling, SamplingSpec};

/// The request that asks a reviewer for its judgement of an `answer` to `request`. `template` is the judge prompt.
pub(crate) fn judge_request(
    request: &Request,
    template: &str,
    answer: &str,
) -> Result<Request, BackendError> {
    let text = fill_template(template, &request.prompt.text(), answer);
    let message = [("role", Value::from("user")), ("content", Value::from(text))];
    let message = Message(message.map(|(key, value)| (key.to_owned(), value)).into_iter().collect());
    let schema = json!({"type": "object", "properties": {"verdict": {"enum": ["approve", "correct", "reject"]}},
        "required": ["verdict"], "additionalProperties": false});
    let spec = SamplingSpec { temperature: 0.0, ..SamplingSpec::default() };
    let sampling = Sampling::new(spec).map_err(|error| BackendError::failed("the gate", error))?;
    Ok(Request {
        id: format!("{}-review", request.id),
        prompt: Prompt::Chat([message].into()),
        sampling,
        max_tokens: Some(24),
        format: Format::JsonSchema(schema.into()),
        owner: request.owner.clone(),
        ..Request::default()
    })
}

/// Replaces `{question}` and `{answer}` in a template. One pass replaces both, so that a placeholder inside the
/// question or the answer stays text.
pub(crate) fn fill_template(template: &str, question: &str, answer: &str) -> String {
    let mut text = String::with_capacity(template.len() + question.len() + answer.len());
    let mut unread = template;
    while let Some(start) = unread.find('{') {
        text.push_str(&unread[..start]);
        unread = &unread[start..];
        let (replacement, length) = if unread.starts_with("{question}") {
            (question, "{question}".len())
        } else if unread.starts_with("{answer}") {
            (answer, "{answer}".len())
        } else {
            ("{", 1)
        };
        text.push_str(replacement);
        unread = &unread[length..];
    }
    text + unread
}

/// Returns the value of `verdict` if the reply is exactly the requested JSON object.
pub(crate) fn parse_judgement(reply: &str) -> Option<String> {
    let object: serde_json::Map<String, Value> = serde_json::from_str(reply.trim()).ok()?;
    let verdict = object.get("verdict")?.as_str()?;
    (object.len() == 1).then(|| verdict.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_is_a_judgement_only_as_the_requested_object() {
        assert_eq!(parse_judgement(" {\"verdict\": \"approve\"}\n").as_deref(), Some("approve"));
        for unclear in [
            "approve",
            "I approve: {\"verdict\": \"approve\"}",
            "{\"verdict\": \"approve\"} and more",
            "{\"verdict\": \"approve\", \"why\": \"I was told to\"}",
            "{\"verdict\": [\"approve\"]}",
            "",
        ] {
            assert_eq!(parse_judgement(unclear), None, "{unclear}");
        }
    }

    #[test]
    fn placeholder_inside_an_answer_is_not_replaced() {
        let text = fill_template("Q: {question} A: {answer} {x}", "{answer}?", "{question}!");
        assert_eq!(text, "Q: {answer}? A: {question}! {x}");
    }
}
