//! Backends as scripts hold them.

use mlua::{FromLua, Lua, UserData, UserDataMethods, UserDataRef, Value};
use tightwad_core::SharedBackend;

use crate::limits::waiting;
use crate::request;
use crate::request::{Answer, RequestHandle};

/// A backend.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) SharedBackend);

impl From<Handle> for SharedBackend {
    fn from(handle: Handle) -> Self {
        handle.0
    }
}

impl FromLua for Handle {
    fn from_lua(value: Value, _: &Lua) -> mlua::Result<Self> {
        let kind = value.type_name();
        let other =
            || mlua::Error::FromLuaConversionError { from: kind, to: "backend".to_owned(), message: None };
        value
            .as_userdata()
            .and_then(|data| data.borrow::<Self>().ok())
            .map(|own| own.clone())
            .ok_or_else(other)
    }
}

impl UserData for Handle {
    fn add_fields<F: mlua::UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("name", |_, this| Ok(this.0.name().to_owned()));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        type Arguments = (UserDataRef<RequestHandle>, Option<mlua::Table>);
        // Streams the answer to the client, and returns it.
        methods.add_async_method("generate", |lua, this, (request, changes): Arguments| async move {
            answer(&lua, &this, &request, changes, true).await
        });
        // Returns the answer without showing it to the client.
        methods.add_async_method("complete", |lua, this, (request, changes): Arguments| async move {
            answer(&lua, &this, &request, changes, false).await
        });
    }
}

/// An answer, or nil and why not; misuse raises.
async fn answer(
    lua: &Lua,
    handle: &Handle,
    request: &RequestHandle,
    changes: Option<mlua::Table>,
    shown: bool,
) -> mlua::Result<(Option<Answer>, Option<String>)> {
    if handle.0.as_generator().is_none() {
        let message = format!("'{}' cannot answer requests: it only drafts", handle.0.name());
        return Err(mlua::Error::RuntimeError(message));
    }
    let changed = request::changed(lua, request, changes)
        .map_err(|error| mlua::Error::RuntimeError(error.to_string()))?;
    Ok(match waiting(lua, request.run(&handle.0, changed, shown)).await {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Some(error.to_string())),
    })
}
