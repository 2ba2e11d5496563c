//! Requests and answers in the hands of scripts.

use std::sync::Arc;

use mlua::{IntoLua, Lua, LuaSerdeExt, Table, UserData, UserDataFields, UserDataMethods, Value};
use tightwad_core::{
    BackendError, Event, FinishReason, Message, Outcome, Prompt, Request, Sampling, SamplingSpec,
    SharedBackend, Sink, relay,
};
use tokio::task::JoinSet;

use crate::keys::{Fields, Schema};
use crate::limits::wait_for_host;
use crate::record::Record;
use crate::table_error::TableError;

/// The fields of a request that a script can change.
pub(crate) const CHANGES: Schema = Schema {
    name: "the changes of a request",
    keys: &["prompt", "messages", "max_tokens", "temperature", "seed", "stop"],
};

/// One request as a Lua value.
#[derive(Clone)]
pub(crate) struct RequestHandle {
    model: String,
    request: Request,
    sink: Sink,
    pub record: Arc<Record>,
}

/// The answer of a backend, as a Lua table.
pub(crate) struct Answer {
    pub text: String,
    pub outcome: Outcome,
}

impl IntoLua for Answer {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        let table = lua.create_table()?;
        table.raw_set("text", self.text)?;
        let finish_reason = if self.outcome.finish_reason == FinishReason::Stop { "stop" } else { "length" };
        table.raw_set("finish_reason", finish_reason)?;
        table.raw_set("prompt_tokens", self.outcome.usage.prompt_tokens)?;
        table.raw_set("completion_tokens", self.outcome.usage.completion_tokens)?;
        table.raw_set("exact", self.outcome.report.exact)?;
        table.into_lua(lua)
    }
}

impl RequestHandle {
    pub(crate) fn new(model: &str, request: Request, sink: Sink) -> Self {
        Self { model: model.to_owned(), request, sink, record: Arc::default() }
    }

    /// Sends `text` to the client.
    pub(crate) async fn emit(&self, text: String) -> Result<(), BackendError> {
        self.record.add_emitted();
        let event = Event { text, logprobs: Vec::new() };
        self.sink.send(event).await.map_err(|_| BackendError::Cancelled)
    }

    /// Answers `request` with `backend`. `stream`: the text goes to the client.
    pub(crate) async fn run(
        &self,
        backend: &SharedBackend,
        request: Request,
        stream: bool,
    ) -> Result<Answer, BackendError> {
        let (backend, sink, record) = (backend.clone(), self.sink.clone(), self.record.clone());
        record.start_generation(stream);
        let running = record.running_guard();
        // The generation runs on the runtime's threads, because this thread belongs to the script. The join set aborts
        // the generation when the script no longer waits for it.
        let mut generation = JoinSet::new();
        generation.spawn(async move {
            let _running = running;
            let answer = generate(&backend, request, sink, stream).await;
            match &answer {
                Ok(answer) => record.add_outcome(&answer.outcome, stream),
                Err(error) => record.add_error(error),
            }
            answer
        });
        match generation.join_next().await {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => Err(BackendError::failed(&self.model, error)),
            None => Err(BackendError::Cancelled),
        }
    }

    fn messages(&self) -> Option<serde_json::Value> {
        match &self.request.prompt {
            Prompt::Text(_) => None,
            Prompt::Chat(messages) => {
                Some(messages.iter().map(|message| serde_json::Value::Object(message.0.clone())).collect())
            }
        }
    }
}

/// Answers `request` with `backend`. `stream`: the events go to `sink`.
async fn generate(
    backend: &SharedBackend,
    request: Request,
    sink: Sink,
    stream: bool,
) -> Result<Answer, BackendError> {
    let mut text = String::new();
    let on_event = |event: Event| {
        text.push_str(&event.text);
        let sink = &sink;
        async move { !stream || sink.send(event).await.is_ok() }
    };
    let outcome = tokio::select! {
        outcome = relay(backend.as_ref(), request, on_event) => outcome?,
        () = sink.closed() => return Err(BackendError::Cancelled),
    };
    Ok(Answer { text, outcome })
}

impl UserData for RequestHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("id", |_, this| Ok(this.request.id.clone()));
        fields.add_field_method_get("model", |_, this| Ok(this.model.clone()));
        fields.add_field_method_get("prompt", |_, this| Ok(this.request.prompt.text()));
        fields.add_field_method_get("messages", |lua, this| lua.to_value(&this.messages()));
        fields.add_field_method_get("max_tokens", |_, this| Ok(this.request.max_tokens));
        fields.add_field_method_get("temperature", |_, this| Ok(this.request.sampling.temperature));
        fields.add_field_method_get("seed", |_, this| Ok(this.request.sampling.seed.cast_signed()));
        fields.add_field_method_get("stop", |_, this| Ok(this.request.stop.clone()));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_async_method("emit", |lua, this, text: String| async move {
            wait_for_host(&lua, this.emit(text)).await.map_err(mlua::Error::external)
        });
    }
}

/// The request of `handle` with the script's `changes`.
pub(crate) fn apply_changes(
    lua: &Lua,
    handle: &RequestHandle,
    changes: Option<Table>,
) -> Result<Request, TableError> {
    let mut request = handle.request.clone();
    let Some(changes) = changes else { return Ok(request) };
    let fields = Fields::new(lua, &changes, &CHANGES)?;
    if let Some(text) = fields.optional::<String>("prompt", "a string")? {
        request.prompt = Prompt::Text(text);
    }
    if let Some(messages) = fields.optional::<Value>("messages", "a list of messages")? {
        let messages: Vec<serde_json::Map<String, serde_json::Value>> = lua
            .from_value(messages)
            .map_err(|_| "'messages' must be a list of tables with role and content".to_owned())?;
        request.prompt = Prompt::Chat(messages.into_iter().map(Message).collect());
    }
    if let Some(max_tokens) = fields.optional::<u32>("max_tokens", "a whole number")? {
        request.max_tokens = Some(max_tokens.max(1));
    }
    if let Some(stop) = fields.optional::<Vec<String>>("stop", "a list of strings")? {
        request.stop = stop.into_iter().filter(|stop| !stop.is_empty()).collect();
    }
    let temperature = fields.optional::<f32>("temperature", "a number")?;
    let seed = fields.optional::<i64>("seed", "a whole number")?;
    let spec = SamplingSpec {
        temperature: temperature.unwrap_or(request.sampling.temperature),
        seed: seed.map_or(request.sampling.seed, i64::cast_unsigned),
        ..(*request.sampling).clone()
    };
    request.sampling = Sampling::new(spec).map_err(|error| error.to_string())?;
    Ok(request)
}
