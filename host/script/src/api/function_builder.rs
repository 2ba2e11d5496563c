//! Builds the functions of `tw` from two halves: one reads the options, and one makes the value.

use std::rc::Rc;
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
use crate::made_values::{CallKey, RunCalls};
use crate::source::Source;

/// Builds functions that share a Lua state and the source of its script.
pub(crate) struct FunctionBuilder<'a> {
    pub(crate) lua: &'a Lua,
    pub(crate) source: &'a Arc<Source>,
    pub(crate) factory: &'a Arc<dyn Factory>,
    pub(crate) calls: Rc<RunCalls>,
}

impl FunctionBuilder<'_> {
    /// The function `name`, which makes a backend.
    pub(crate) fn backend<S, F>(
        &self,
        name: &'static str,
        read: ReadOptions<S>,
        make: fn(Arc<dyn Factory>, S) -> F,
    ) -> mlua::Result<Function>
    where
        S: Send + 'static,
        F: Future<Output = Result<SharedBackend, FactoryError>> + Send + 'static,
    {
        self.value(name, read, make, BackendHandle)
    }

    /// `tw.serve`.
    pub(crate) fn serve(&self) -> mlua::Result<Function> {
        let source = self.source.clone();
        self.lua.create_function(move |lua, table: Table| {
            Ok(match serve::serve(lua, &table, &source.folder) {
                Ok(spec) => (Some(spec), None),
                Err(error) => (None, Some(error.to_string())),
            })
        })
    }

    /// The function `name`. It returns the value, or nil and the reason of a failure.
    pub(crate) fn value<S, T, F, V>(
        &self,
        name: &'static str,
        read: ReadOptions<S>,
        make: fn(Arc<dyn Factory>, S) -> F,
        wrap: fn(T) -> V,
    ) -> mlua::Result<Function>
    where
        S: Send + 'static,
        T: Clone + Send + Sync + 'static,
        V: IntoLua + 'static,
        F: Future<Output = Result<T, FactoryError>> + Send + 'static,
    {
        let (source, factory, calls) = (self.source.clone(), self.factory.clone(), self.calls.clone());
        self.lua.create_async_function(move |lua, table: Table| {
            let spec = read(&lua, &table, &source.folder);
            let (source, factory, call) = (source.clone(), factory.clone(), calls.next(name, &table));
            async move {
                let result = match spec {
                    Ok(spec) => {
                        make_once(&lua, &source, call, || make(factory, spec)).await.map_err(String::from)
                    }
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

/// The value that an earlier run of the script made in the same call. Otherwise makes the value.
async fn make_once<T, F>(
    lua: &Lua,
    source: &Source,
    call: Option<CallKey>,
    make: impl FnOnce() -> F,
) -> Result<T, FactoryError>
where
    T: Clone + Send + Sync + 'static,
    F: Future<Output = Result<T, FactoryError>> + Send + 'static,
{
    if let Some(made) = call.as_ref().and_then(|call| source.made.get(call)) {
        return made;
    }
    let made = run_on_runtime(lua, make()).await;
    if let Some(call) = call {
        source.made.insert(call, made.clone());
    }
    made
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
