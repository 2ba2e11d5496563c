//! The API of a server: its paths and field names.

use serde_json::{Map, Value, json};
use tightwad_core::Request;

/// The API of a text server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// llama.cpp's llama-server.
    LlamaServer,
    /// Ollama: `/api/chat`, `/api/generate`, `/api/tags`.
    Ollama,
    /// OpenAI's API: vLLM, LM Studio, tightwad itself and many others.
    OpenAi,
}

impl Dialect {
    /// The path of the list of models.
    pub(crate) fn models_path(self) -> &'static str {
        match self {
            Self::Ollama => "/api/tags",
            Self::LlamaServer | Self::OpenAi => "/v1/models",
        }
    }

    /// The names in the list of models.
    pub(crate) fn model_names(self, list: &Value) -> Vec<String> {
        let (field, key) = match self {
            Self::Ollama => ("models", "name"),
            Self::LlamaServer | Self::OpenAi => ("data", "id"),
        };
        let models = list[field].as_array().into_iter().flatten();
        models.filter_map(|model| model[key].as_str().map(str::to_owned)).collect()
    }

    /// Path and body of a request that continues `text`, greedily and without streaming.
    pub(crate) fn continuation(self, model: &str, text: &str, tokens: u32) -> (&'static str, Value) {
        match self {
            Self::LlamaServer => (
                "/completion",
                json!({"prompt": text, "n_predict": tokens, "temperature": 0, "cache_prompt": true,
                       "stream": false, "n_probs": 1, "post_sampling_probs": false}),
            ),
            Self::Ollama => (
                "/api/generate",
                json!({"model": model, "prompt": text, "raw": true, "stream": false,
                       "options": {"num_predict": tokens, "temperature": 0}}),
            ),
            Self::OpenAi => (
                "/v1/completions",
                json!({"model": model, "prompt": text, "max_tokens": tokens, "temperature": 0}),
            ),
        }
    }

    /// The text in the reply to a continuation.
    pub(crate) fn continuation_text(self, answer: &Value) -> Option<&str> {
        match self {
            Self::LlamaServer => answer["content"].as_str(),
            Self::Ollama => answer["response"].as_str(),
            Self::OpenAi => answer["choices"][0]["text"].as_str(),
        }
    }

    /// The probabilities of the tokens in the reply, if the server reports them.
    pub(crate) fn probabilities(self, answer: &Value) -> Vec<f32> {
        let list = match self {
            Self::LlamaServer => answer["completion_probabilities"].as_array(),
            Self::Ollama | Self::OpenAi => None,
        };
        let probability = |token: &Value| Some(token["logprob"].as_f64()?.exp().clamp(0.0, 1.0) as f32);
        list.into_iter().flatten().filter_map(probability).collect()
    }

    /// Adds the settings that only this API has.
    pub(crate) fn add_own_settings(self, body: &mut Map<String, Value>, request: &Request) {
        let sampling = &request.sampling;
        if self == Self::LlamaServer {
            body.insert("top_k".to_owned(), sampling.top_k.into());
            body.insert("min_p".to_owned(), number(sampling.min_p));
            body.insert("repeat_penalty".to_owned(), number(sampling.repeat_penalty));
        }
    }
}

/// The shortest number that stands for `value`: 0.7 instead of 0.699999988079071.
pub(crate) fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
