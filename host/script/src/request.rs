//! A request as pipelines see it.

use std::sync::Arc;

use mlua::{IntoLua, Lua, LuaSerdeExt, Table, UserData, UserDataFields, UserDataMethods, Value};
use tightwad_core::{
    BackendError, Event, Finish, Message, Outcome, Prompt, Request, Sampling, SamplingSpec, SharedBackend,
    Sink, relay,
};
use tokio::task::JoinSet;

use crate::keys::Fields;
use crate::limits::waiting;
use crate::record::Record;
use crate::table_error::TableError;

/// One request in a script's hands.
#[derive(Clone)]
pub(crate) struct RequestHandle {
    model: String,
    request: Request,
    sink: Sink,
    pub record: Arc<Record>,
}

/// What a backend answered, as a script sees it.
pub(crate) struct Answer {
    text: String,
    outcome: Outcome,
}

impl IntoLua for Answer {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        let table = lua.create_table()?;
        table.raw_set("text", self.text)?;
        table.raw_set("finish", if self.outcome.finish == Finish::Stop { "stop" } else { "length" })?;
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

    /// Shows `text` to the client.
    pub(crate) async fn emit(&self, text: String) -> Result<(), BackendError> {
        self.record.emitted();
        let event = Event { text, logprobs: Vec::new() };
        self.sink.send(event).await.map_err(|_| BackendError::Cancelled)
    }

    /// Lets `backend` answer; the client sees it where `shown` says so.
    pub(crate) async fn run(
        &self,
        backend: &SharedBackend,
        request: Request,
        shown: bool,
    ) -> Result<Answer, BackendError> {
        let (backend, sink, record) = (backend.clone(), self.sink.clone(), self.record.clone());
        record.generation_begins(shown);
        let running = record.running();
        // On the runtime's threads: this one is the script's. Aborted where the script does not wait any more.
        let mut generating = JoinSet::new();
        generating.spawn(async move {
            let _running = running;
            let answer = relayed(&backend, request, sink, shown).await;
            match &answer {
                Ok(answer) => record.add(&answer.outcome, shown),
                Err(error) => record.failed(error),
            }
            answer
        });
        match generating.join_next().await {
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

/// Lets `backend` answer; the events go to `sink` where `shown` says so.
async fn relayed(
    backend: &SharedBackend,
    request: Request,
    sink: Sink,
    shown: bool,
) -> Result<Answer, BackendError> {
    let mut text = String::new();
    let show = |event: Event| {
        text.push_str(&event.text);
        let sink = &sink;
        async move { !shown || sink.send(event).await.is_ok() }
    };
    let outcome = tokio::select! {
        outcome = relay(backend.as_ref(), request, show) => outcome?,
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
            waiting(&lua, this.emit(text)).await.map_err(mlua::Error::external)
        });
    }
}

/// The request with a script's changes.
pub(crate) fn changed(
    lua: &Lua,
    handle: &RequestHandle,
    changes: Option<Table>,
) -> Result<Request, TableError> {
    let mut request = handle.request.clone();
    let Some(changes) = changes else { return Ok(request) };
    let known = ["prompt", "messages", "max_tokens", "temperature", "seed", "stop"];
    let fields = Fields::new(lua, &changes, "generate", &known)?;
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
