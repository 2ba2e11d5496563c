//! Backends in the hands of scripts.

use mlua::{FromLua, Lua, UserData, UserDataMethods, UserDataRef, Value};
use tightwad_core::SharedBackend;

use crate::limits::wait_for_host;
use crate::request;
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
        type Arguments = (UserDataRef<RequestHandle>, Option<mlua::Table>);
        // Streams the answer to the client, and returns the answer.
        methods.add_async_method("generate", |lua, this, (request, changes): Arguments| async move {
            answer(&lua, &this, &request, changes, true).await
        });
        // Returns the answer without sending it to the client.
        methods.add_async_method("complete", |lua, this, (request, changes): Arguments| async move {
            answer(&lua, &this, &request, changes, false).await
        });
    }
}

/// An answer, or nil and the reason of a failure. Wrong arguments raise an error. `stream`: the client receives the
/// text.
async fn answer(
    lua: &Lua,
    handle: &BackendHandle,
    request: &RequestHandle,
    changes: Option<mlua::Table>,
    stream: bool,
) -> mlua::Result<(Option<Answer>, Option<String>)> {
    if handle.0.as_generator().is_none() {
        let message = format!("'{}' cannot answer requests: it only drafts", handle.0.name());
        return Err(mlua::Error::RuntimeError(message));
    }
    let changed = request::apply_changes(lua, request, changes)
        .map_err(|error| mlua::Error::RuntimeError(error.to_string()))?;
    Ok(match wait_for_host(lua, request.run(&handle.0, changed, stream)).await {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Some(error.to_string())),
    })
}
