//! What all objects of one answer share.

use serde_json::{Value, json};

use crate::body::shape::Shape;
use crate::reply::objects::{Sum, usage};

/// What all objects of one answer share.
pub(crate) struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub shape: Shape,
    /// Tool calls are looked for in the text.
    pub tools: bool,
    /// A stream ends with a chunk of usage.
    pub usage: bool,
}

impl Head {
    /// A chunk of a stream.
    pub(crate) fn chunk(&self, choices: Value) -> Value {
        let mut object = self.object(match self.shape {
            Shape::Chat => "chat.completion.chunk",
            Shape::Completion => "text_completion",
        });
        object["choices"] = choices;
        if self.usage {
            object["usage"] = Value::Null;
        }
        object
    }

    /// A whole answer.
    pub(crate) fn whole(&self, choices: Vec<Value>, sum: &Sum) -> Value {
        let mut object = self.object(match self.shape {
            Shape::Chat => "chat.completion",
            Shape::Completion => "text_completion",
        });
        object["choices"] = choices.into();
        object["usage"] = usage(&sum.usage);
        object["tightwad"] = sum.report();
        object
    }

    fn object(&self, kind: &str) -> Value {
        json!({
            "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": concat!("tightwad-", env!("CARGO_PKG_VERSION")),
        })
    }
}
