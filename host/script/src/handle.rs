//! Backends in the hands of scripts.

use mlua::{FromLua, Lua, UserData, UserDataMethods, Value};
use tightwad_core::SharedBackend;

use crate::changes::changed_request;
use crate::keys::describe;
use crate::limits::wait_for_host;
use crate::request::{Answer, RequestHandle};

/// A backend as a Lua value.
#[derive(Clone)]
pub(crate) struct BackendHandle(pub(crate) SharedBackend);

impl From<BackendHandle> for SharedBackend {
    fn from(handle: BackendHandle) -> Self {
        handle.0
    }
}

impl FromLua for BackendHandle {
    fn from_lua(value: Value, _: &Lua) -> mlua::Result<Self> {
        let kind = value.type_name();
        let type_error =
            || mlua::Error::FromLuaConversionError { from: kind, to: "backend".to_owned(), message: None };
        value
            .as_userdata()
            .and_then(|data| data.borrow::<Self>().ok())
            .map(|handle| handle.clone())
            .ok_or_else(type_error)
    }
}

impl UserData for BackendHandle {
    fn add_fields<F: mlua::UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("name", |_, this| Ok(this.0.name().to_owned()));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        // Streams the answer to the client, and returns the answer.
        methods.add_async_method("generate", |lua, this, (request, changes): (Value, Value)| async move {
            answer(&lua, &this, Call { method: "generate", stream: true }, &request, changes).await
        });
        // Returns the answer without sending it to the client.
        methods.add_async_method("complete", |lua, this, (request, changes): (Value, Value)| async move {
            answer(&lua, &this, Call { method: "complete", stream: false }, &request, changes).await
        });
    }
}

/// A method of a backend that answers. `stream`: the client receives the text.
struct Call {
    method: &'static str,
    stream: bool,
}

impl Call {
    /// The error about a wrong argument.
    fn wrong_argument(&self, expected: &str, found: &Value) -> mlua::Error {
        let Self { method, .. } = self;
        mlua::Error::RuntimeError(format!(
            "{method} takes {expected}, as in model:{method}(req), not {}",
            describe(found)
        ))
    }
}

/// An answer, or nil and the reason of a failure. Wrong arguments raise an error.
async fn answer(
    lua: &Lua,
    handle: &BackendHandle,
    call: Call,
    request: &Value,
    changes: Value,
) -> mlua::Result<(Option<Answer>, Option<String>)> {
    let request_handle = request.as_userdata().and_then(|data| data.borrow::<RequestHandle>().ok());
    let request = match request_handle {
        Some(handle) => handle.active()?,
        None => return Err(call.wrong_argument("the request first", request)),
    };
    let changes = match changes {
        Value::Nil => None,
        Value::Table(changes) => Some(changes),
        other => return Err(call.wrong_argument("a table of changes after the request", &other)),
    };
    if handle.0.as_generator().is_none() {
        let message = format!("'{}' cannot answer requests: it only drafts", handle.0.name());
        return Err(mlua::Error::RuntimeError(message));
    }
    let changed = changed_request(lua, &request.request, changes)
        .map_err(|error| mlua::Error::RuntimeError(error.to_string()))?;
    Ok(match wait_for_host(lua, request.run(&handle.0, changed, call.stream)).await {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Some(error.to_string())),
    })
}
