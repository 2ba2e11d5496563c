//! The JSON objects of both endpoints.

use serde_json::{Value, json};
use tightwad_core::{FinishReason, Outcome, Report, Usage, random_hex};

/// Usage and reports over all choices. The tokens of a prompt count once, however many choices it has.
#[derive(Default)]
pub(crate) struct Totals {
    /// Prompt tokens and cached tokens, by prompt.
    prompts: Vec<(u32, u32)>,
    completion_tokens: u32,
    report: Option<Report>,
}

impl Totals {
    /// Adds a choice of the prompt with the index `prompt`.
    pub(crate) fn add(&mut self, prompt: usize, outcome: &Outcome) {
        if self.prompts.len() <= prompt {
            self.prompts.resize(prompt + 1, (0, 0));
        }
        let (prompt_tokens, cached_tokens) = &mut self.prompts[prompt];
        *prompt_tokens = (*prompt_tokens).max(outcome.usage.prompt_tokens);
        *cached_tokens = (*cached_tokens).max(outcome.usage.cached_tokens);
        self.completion_tokens += outcome.usage.completion_tokens;
        match &mut self.report {
            None => self.report = Some(outcome.report.clone()),
            Some(report) => report.add(&outcome.report),
        }
    }

    /// The usage of the request.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompts.iter().map(|(prompt_tokens, _)| prompt_tokens).sum(),
            completion_tokens: self.completion_tokens,
            cached_tokens: self.prompts.iter().map(|(_, cached_tokens)| cached_tokens).sum(),
        }
    }

    /// The `tightwad` object.
    pub(crate) fn report(&self) -> Value {
        let Some(report) = &self.report else { return Value::Null };
        let mut object = serde_json::to_value(report).unwrap_or_default();
        let plugin = |(name, sha256): &(String, String)| json!({"name": name, "sha256": sha256});
        object["plugins"] = report.plugins.iter().map(plugin).collect();
        object
    }
}

/// OpenAI's `usage`.
pub(crate) fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    })
}

/// OpenAI's `finish_reason`.
pub(crate) fn finish_reason(finish: FinishReason, calls: usize) -> &'static str {
    match finish {
        FinishReason::Stop if calls > 0 => "tool_calls",
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// The random bytes of a tool call's id.
const CALL_ID_BYTES: usize = 8;

/// One tool call in a message.
pub(crate) fn tool_call(name: &str, arguments: &str) -> Value {
    let id = random_hex::<CALL_ID_BYTES>();
    json!({"id": format!("call_{id}"), "type": "function", "function": {"name": name, "arguments": arguments}})
}
