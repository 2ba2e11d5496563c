//! Makes functions of `tw` from their two halves: one reads the script's table, one makes the value.

use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use futures_util::poll;
use mlua::{Function, IntoLua, Lua, Table};
use tightwad_core::SharedBackend;

use crate::api::serve;
use crate::factory::{Factory, FactoryError};
use crate::handle::Handle;
use crate::keys::Read;
use crate::limits::waiting;

/// What the functions of `tw` are made with.
pub(crate) struct Makers<'a> {
    pub(crate) lua: &'a Lua,
    pub(crate) folder: &'a Path,
    pub(crate) factory: &'a Arc<dyn Factory>,
}

impl Makers<'_> {
    /// A function that makes a backend of a table.
    pub(crate) fn backend<S, F>(
        &self,
        read: Read<S>,
        make: fn(Arc<dyn Factory>, S) -> F,
    ) -> mlua::Result<Function>
    where
        S: Send + 'static,
        F: Future<Output = Result<SharedBackend, FactoryError>> + Send + 'static,
    {
        self.function(read, make, |_, backend| Ok(Handle(backend)))
    }

    /// A function that makes any value of a table.
    pub(crate) fn value<S, T, F>(
        &self,
        read: Read<S>,
        make: fn(Arc<dyn Factory>, S) -> F,
    ) -> mlua::Result<Function>
    where
        S: Send + 'static,
        T: IntoLua + Send + 'static,
        F: Future<Output = Result<T, FactoryError>> + Send + 'static,
    {
        self.function(read, make, |_, value| Ok(value))
    }

    /// The function that ends a script.
    pub(crate) fn serve(&self) -> mlua::Result<Function> {
        let folder = self.folder.to_owned();
        self.lua.create_function(move |lua, table: Table| {
            Ok(match serve::served(lua, &table, &folder) {
                Ok(served) => (Some(served), None),
                Err(error) => (None, Some(error.to_string())),
            })
        })
    }

    /// Returns the value, or nil and why not.
    fn function<S, T, F, V>(
        &self,
        read: Read<S>,
        make: fn(Arc<dyn Factory>, S) -> F,
        shown: fn(&Lua, T) -> mlua::Result<V>,
    ) -> mlua::Result<Function>
    where
        S: Send + 'static,
        T: Send + 'static,
        V: IntoLua + 'static,
        F: Future<Output = Result<T, FactoryError>> + Send + 'static,
    {
        let (folder, factory) = (self.folder.to_owned(), self.factory.clone());
        self.lua.create_async_function(move |lua, table: Table| {
            let (spec, factory) = (read(&lua, &table, &folder), factory.clone());
            async move {
                let made = match spec {
                    Ok(spec) => elsewhere(&lua, make(factory, spec)).await.map_err(String::from),
                    Err(error) => Err(error.to_string()),
                };
                Ok(match made {
                    Ok(value) => (Some(shown(&lua, value)?), None),
                    Err(error) => (None, Some(error)),
                })
            }
        })
    }
}

/// Waits for what the host makes, on the runtime's threads: this one is the script's. What takes no time is made
/// here, so that a loop without a pause is one.
async fn elsewhere<T: Send + 'static>(
    lua: &Lua,
    made: impl Future<Output = Result<T, FactoryError>> + Send + 'static,
) -> Result<T, FactoryError> {
    let mut made = Box::pin(made);
    if let Poll::Ready(made) = poll!(&mut made) {
        return made;
    }
    waiting(lua, tokio::spawn(made)).await.unwrap_or_else(|error| Err(error.to_string().into()))
}
