//! The JSON objects of both endpoints.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use serde_json::{Value, json};
use tightwad_core::{FinishReason, Outcome, Report, Usage};

/// Usage and reports over all choices. Prompt tokens are the maximum, other counts are sums.
#[derive(Default)]
pub(crate) struct Totals {
    pub usage: Usage,
    report: Option<Report>,
}

impl Totals {
    /// Adds a choice.
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.usage.prompt_tokens = self.usage.prompt_tokens.max(outcome.usage.prompt_tokens);
        self.usage.cached_tokens = self.usage.cached_tokens.max(outcome.usage.cached_tokens);
        self.usage.completion_tokens += outcome.usage.completion_tokens;
        match &mut self.report {
            None => self.report = Some(outcome.report.clone()),
            Some(report) => report.add(&outcome.report),
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
pub(crate) fn usage(usage: &Usage) -> Value {
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

/// One tool call in a message.
pub(crate) fn tool_call(name: &str, arguments: &str) -> Value {
    let id = RandomState::new().hash_one(name);
    json!({"id": format!("call_{id:016x}"), "type": "function", "function": {"name": name, "arguments": arguments}})
}
