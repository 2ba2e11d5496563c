//! A function of a script as a backend.

use std::sync::PoisonError;

use async_trait::async_trait;
use mlua::{Function, Lua, Value};

use super::error::message;
use super::limits::Limits;
use super::request::RequestHandle;
use crate::backend::{Backend, BackendError, Capabilities, Sink};
use crate::types::{Outcome, Request};

/// Calls a function with each request. What it streams is the answer; a string that it returns is
/// shown too.
pub(super) struct Pipeline {
    name: String,
    // Keeps the state alive that the function lives in.
    _lua: Lua,
    function: Function,
    limits: Limits,
}

impl Pipeline {
    pub(super) fn new(name: &str, lua: Lua, function: Function, limits: Limits) -> Self {
        Self { name: name.to_owned(), _lua: lua, function, limits }
    }
}

#[async_trait]
impl Backend for Pipeline {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::GENERATE
    }

    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let handle = RequestHandle::new(&self.name, request, sink);
        let record = handle.record.clone();
        let called = self.function.call_async::<(Value, Value)>(handle.clone());
        let returned = self.limits.run(called).await;
        let failed = || record.lock().unwrap_or_else(PoisonError::into_inner).error.take();
        match returned {
            Err(error) => {
                // What the client can mend comes before what the script made of it.
                return Err(match failed() {
                    Some(BackendError::Cancelled) => BackendError::Cancelled,
                    _ => BackendError::failed(&self.name, message(&error)),
                });
            }
            Ok((Value::Nil, Value::Nil)) => {}
            Ok((Value::Nil, reason)) => {
                let reason = reason.to_string().unwrap_or_default();
                return Err(failed().unwrap_or_else(|| BackendError::failed(&self.name, reason)));
            }
            Ok((Value::String(text), _)) => handle.emit(text.to_string_lossy()).await?,
            Ok(_) => {}
        }
        let outcome = record.lock().unwrap_or_else(PoisonError::into_inner).outcome();
        Ok(outcome)
    }
}
