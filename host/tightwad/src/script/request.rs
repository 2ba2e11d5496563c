//! A request as pipelines see it.

use std::sync::{Arc, Mutex, PoisonError};

use mlua::{IntoLua, Lua, LuaSerdeExt, Table, UserData, UserDataFields, UserDataMethods, Value};
use tightwad_engine::{Sampling, SamplingSpec};

use super::keys::Fields;
use crate::backend::{BackendError, SharedBackend, Sink, relay};
use crate::types::{Event, Finish, Message, Outcome, Prompt, Report, Request, Usage};

/// What a pipeline did so far.
#[derive(Default)]
pub(super) struct Record {
    pub shown: Option<Outcome>,
    pub usage: Usage,
    /// Text that no model wrote was shown.
    pub emitted: bool,
    pub error: Option<BackendError>,
}

/// One request in a script's hands.
#[derive(Clone)]
pub(super) struct RequestHandle {
    model: String,
    request: Request,
    sink: Sink,
    pub record: Arc<Mutex<Record>>,
}

/// What a backend answered, as a script sees it.
pub(super) struct Answer {
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
    pub(super) fn new(model: &str, request: Request, sink: Sink) -> Self {
        Self { model: model.to_owned(), request, sink, record: Arc::default() }
    }

    /// Shows `text` to the client.
    pub(super) async fn emit(&self, text: String) -> Result<(), BackendError> {
        self.note(|record| record.emitted = true);
        let event = Event { text, logprobs: Vec::new() };
        self.sink.send(event).await.map_err(|_| BackendError::Cancelled)
    }

    /// Lets `backend` answer; the client sees it where `shown` says so.
    pub(super) async fn run(
        &self,
        backend: &SharedBackend,
        request: Request,
        shown: bool,
    ) -> Result<Answer, BackendError> {
        let mut text = String::new();
        let show = |event: Event| {
            text.push_str(&event.text);
            async move { !shown || self.sink.send(event).await.is_ok() }
        };
        let outcome = tokio::select! {
            outcome = relay(backend.as_ref(), request, show) => outcome,
            () = self.sink.closed() => Err(BackendError::Cancelled),
        };
        match outcome {
            Ok(outcome) => {
                self.note(|record| record.add(&outcome, shown));
                Ok(Answer { text, outcome })
            }
            Err(error) => {
                self.note(|record| record.error = Some(error.clone()));
                Err(error)
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
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

impl Record {
    fn add(&mut self, outcome: &Outcome, shown: bool) {
        self.usage.prompt_tokens += outcome.usage.prompt_tokens;
        self.usage.completion_tokens += outcome.usage.completion_tokens;
        self.usage.cached_tokens += outcome.usage.cached_tokens;
        if !shown {
            return;
        }
        match &mut self.shown {
            None => self.shown = Some(outcome.clone()),
            Some(before) => {
                before.finish = outcome.finish;
                before.report.add(&outcome.report);
            }
        }
    }

    /// The pipeline's outcome.
    pub(super) fn outcome(&self) -> Outcome {
        let shown = self.shown.clone();
        let finish = shown.as_ref().map_or(Finish::Stop, |outcome| outcome.finish);
        let mut report = shown.map_or_else(Report::default, |outcome| outcome.report);
        report.mode =
            if report.mode.is_empty() { "pipeline".to_owned() } else { format!("pipeline/{}", report.mode) };
        report.exact &= !self.emitted;
        Outcome { finish, usage: self.usage, report }
    }
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
        methods.add_async_method("emit", |_, this, text: String| async move {
            this.emit(text).await.map_err(mlua::Error::external)
        });
    }
}

/// The request with a script's changes.
pub(super) fn changed(lua: &Lua, handle: &RequestHandle, changes: Option<Table>) -> Result<Request, String> {
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
            .map_err(|_| "'messages' must be a list of tables with role and content")?;
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
