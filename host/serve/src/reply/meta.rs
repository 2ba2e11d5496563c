//! The fields that all JSON objects of one response share.

use serde_json::{Value, json};

use crate::endpoint::Endpoint;
use crate::reply::objects::{Totals, usage};

/// The fields that all JSON objects of one response share.
pub(crate) struct ResponseMeta {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub endpoint: Endpoint,
    pub choices_per_prompt: usize,
    /// True if the text can contain tool calls.
    pub tools: bool,
    /// True if a stream ends with a chunk of usage.
    pub usage: bool,
}

impl ResponseMeta {
    /// The index of the prompt of a choice.
    pub(crate) fn prompt_of(&self, choice: usize) -> usize {
        choice / self.choices_per_prompt.max(1)
    }

    /// A chunk of a stream.
    pub(crate) fn chunk(&self, choices: Value) -> Value {
        let mut object = self.object(match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completion => "text_completion",
        });
        object["choices"] = choices;
        if self.usage {
            object["usage"] = Value::Null;
        }
        object
    }

    /// The object of a response without streaming.
    pub(crate) fn response(&self, choices: Vec<Value>, totals: &Totals) -> Value {
        let mut object = self.object(match self.endpoint {
            Endpoint::Chat => "chat.completion",
            Endpoint::Completion => "text_completion",
        });
        object["choices"] = choices.into();
        object["usage"] = usage(totals.usage());
        object["tightwad"] = totals.report();
        object
    }

    fn object(&self, kind: &str) -> Value {
        json!({
            "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": concat!("tightwad-", env!("CARGO_PKG_VERSION")),
        })
    }
}
