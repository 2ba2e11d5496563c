//! Builds the functions of `tw` from two halves: one reads the options, and one makes the value.

use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use futures_util::poll;
use mlua::{Function, IntoLua, Lua, Table};
use tightwad_core::SharedBackend;

use crate::api::serve;
use crate::factory::{Factory, FactoryError};
use crate::handle::BackendHandle;
use crate::keys::ReadOptions;
use crate::limits::wait_for_host;

/// Builds functions that share a Lua state, a folder and a factory.
pub(crate) struct FunctionBuilder<'a> {
    pub(crate) lua: &'a Lua,
    pub(crate) folder: &'a Path,
    pub(crate) factory: &'a Arc<dyn Factory>,
}

impl FunctionBuilder<'_> {
    /// A function that makes a backend.
    pub(crate) fn backend<S, F>(
        &self,
        read: ReadOptions<S>,
        make: fn(Arc<dyn Factory>, S) -> F,
    ) -> mlua::Result<Function>
    where
        S: Send + 'static,
        F: Future<Output = Result<SharedBackend, FactoryError>> + Send + 'static,
    {
        self.function(read, make, BackendHandle)
    }

    /// A function that makes a value of any type.
    pub(crate) fn value<S, T, F>(
        &self,
        read: ReadOptions<S>,
        make: fn(Arc<dyn Factory>, S) -> F,
    ) -> mlua::Result<Function>
    where
        S: Send + 'static,
        T: IntoLua + Send + 'static,
        F: Future<Output = Result<T, FactoryError>> + Send + 'static,
    {
        self.function(read, make, |value| value)
    }

    /// `tw.serve`.
    pub(crate) fn serve(&self) -> mlua::Result<Function> {
        let folder = self.folder.to_owned();
        self.lua.create_function(move |lua, table: Table| {
            Ok(match serve::serve(lua, &table, &folder) {
                Ok(spec) => (Some(spec), None),
                Err(error) => (None, Some(error.to_string())),
            })
        })
    }

    /// A function that returns the value, or nil and the reason of a failure.
    fn function<S, T, F, V>(
        &self,
        read: ReadOptions<S>,
        make: fn(Arc<dyn Factory>, S) -> F,
        wrap: fn(T) -> V,
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
                let result = match spec {
                    Ok(spec) => run_on_runtime(&lua, make(factory, spec)).await.map_err(String::from),
                    Err(error) => Err(error.to_string()),
                };
                Ok(match result {
                    Ok(value) => (Some(wrap(value)), None),
                    Err(error) => (None, Some(error)),
                })
            }
        })
    }
}

/// Runs `make` on the runtime's threads, because this thread belongs to the script. A future that is ready immediately
/// completes on this thread. The time limit therefore covers a loop of such calls.
async fn run_on_runtime<T: Send + 'static>(
    lua: &Lua,
    make: impl Future<Output = Result<T, FactoryError>> + Send + 'static,
) -> Result<T, FactoryError> {
    let mut make = Box::pin(make);
    if let Poll::Ready(result) = poll!(&mut make) {
        return result;
    }
    wait_for_host(lua, tokio::spawn(make)).await.unwrap_or_else(|error| Err(error.to_string().into()))
}
