//! Requests and answers in the hands of scripts.
//!
//! Invariant: a script can reach a request only until its function returns. A script can keep the Lua value longer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{IntoLua, Lua, LuaSerdeExt, UserData, UserDataFields, UserDataMethods, Value};
use tightwad_core::{
    BackendError, Event, FinishReason, Message, Outcome, Prompt, Request, SharedBackend, Sink, relay,
};
use tokio::task::JoinSet;

use crate::keys::describe;
use crate::limits::wait_for_host;
use crate::record::Record;

/// A running request of a pipeline.
pub(crate) struct ActiveRequest {
    model: String,
    pub request: Request,
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

impl ActiveRequest {
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

    fn messages(&self) -> Option<&[Message]> {
        match &self.request.prompt {
            Prompt::Text(_) => None,
            Prompt::Chat(messages) => Some(messages),
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

/// A request as a Lua value.
#[derive(Clone)]
pub(crate) struct RequestHandle(Rc<RefCell<Option<Rc<ActiveRequest>>>>);

impl RequestHandle {
    pub(crate) fn new(request: &Rc<ActiveRequest>) -> Self {
        Self(Rc::new(RefCell::new(Some(request.clone()))))
    }

    /// The request, until its function has returned.
    pub(crate) fn active(&self) -> mlua::Result<Rc<ActiveRequest>> {
        self.0.borrow().clone().ok_or_else(|| {
            mlua::Error::RuntimeError(
                "the request has ended. Use `req` only before its function returns".to_owned(),
            )
        })
    }

    /// Ends the access of the script to the request.
    pub(crate) fn close(&self) {
        self.0.take();
    }
}

impl UserData for RequestHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("id", |_, this| Ok(this.active()?.request.id.clone()));
        fields.add_field_method_get("model", |_, this| Ok(this.active()?.model.clone()));
        fields.add_field_method_get("prompt", |_, this| Ok(this.active()?.request.prompt.text()));
        fields.add_field_method_get("messages", |lua, this| lua.to_value(&this.active()?.messages()));
        fields.add_field_method_get("max_tokens", |_, this| Ok(this.active()?.request.max_tokens));
        fields.add_field_method_get("temperature", |_, this| Ok(this.active()?.request.sampling.temperature));
        fields.add_field_method_get("seed", |_, this| Ok(this.active()?.request.sampling.seed.cast_signed()));
        fields.add_field_method_get("stop", |_, this| Ok(this.active()?.request.stop.to_vec()));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_async_method("emit", |lua, this, value: Value| async move {
            let request = this.active()?;
            let text = text_of(&value).ok_or_else(|| {
                mlua::Error::RuntimeError(format!("emit takes a string, not {}", describe(&value)))
            })?;
            wait_for_host(&lua, request.emit(text)).await.map_err(mlua::Error::external)
        });
        methods.add_meta_method_mut("__newindex", |_, _, (key, _): (String, Value)| -> mlua::Result<()> {
            Err(mlua::Error::RuntimeError(format!(
                "'{key}' of a request cannot be set. Pass a changed value to the backend, as in \
                 model:generate(req, {{ {key} = ... }})"
            )))
        });
    }
}

/// The text of a string or a number, as Lua's own functions take it. Bytes that are not UTF-8 become replacement
/// characters.
pub(crate) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.to_string_lossy()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
