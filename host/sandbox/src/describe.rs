//! Asking a component who it is.
//!
//! Every world exports `describe`, so one instance without a mode behind it can answer: what else it imports traps.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{ComponentType, HasSelf, Lift, Linker, ResourceType};

use crate::bindings::tightwad::plugin::clock;
use crate::contract::Compiled;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::limits::{Limits, Meter, whatever_it_does};
use crate::state::State;
use crate::store;

/// The record `info` of every world.
#[derive(ComponentType, Lift)]
#[component(record)]
struct Info {
    name: String,
    version: String,
}

/// The label of a component: its own name and version. Until they are known, errors call it `name`.
pub(crate) async fn label(
    engine: &Arc<PluginEngine>,
    name: &str,
    compiled: &Compiled,
    limits: Limits,
) -> Result<String, PluginError> {
    let mut store = store::open(engine, name, Meter::new(limits, 0), ());
    match whatever_it_does(describe(engine, compiled, &mut store)).await {
        Ok(info) => Ok(format!("{}@{}", info.name, info.version)),
        Err(error) => Err(store::call_error(compiled.world.describe, &error, store.data())),
    }
}

async fn describe(
    engine: &PluginEngine,
    compiled: &Compiled,
    store: &mut Store<State<()>>,
) -> wasmtime::Result<Info> {
    let mut linker = engine.linker(compiled.world)?;
    clock::add_to_linker::<State<()>, HasSelf<State<()>>>(&mut linker, |state| state)?;
    for name in &compiled.imports {
        if !offered(name) {
            trap(&mut linker, engine, compiled, name)?;
        }
    }
    let instance = linker.instantiate_async(&mut *store, &compiled.component).await?;
    let missing = |what: &str| wasmtime::Error::msg(format!("it does not export {what}"));
    let interface = instance.get_export_index(&mut *store, None, &compiled.export);
    let interface = interface.ok_or_else(|| missing(&compiled.export))?;
    let function = instance.get_export_index(&mut *store, Some(&interface), "describe");
    let function = function.ok_or_else(|| missing("describe"))?;
    let (info,) =
        instance.get_typed_func::<(), (Info,)>(&mut *store, &function)?.call_async(&mut *store, ()).await?;
    Ok(info)
}

/// True for what is offered to every component that may import it.
fn offered(import: &str) -> bool {
    ["tightwad:plugin/log@", "tightwad:plugin/clock@", "wasi:"]
        .iter()
        .any(|prefix| import.starts_with(prefix))
}

/// Defines the functions of an interface as traps: there is no mode behind them.
fn trap(
    linker: &mut Linker<State<()>>,
    engine: &PluginEngine,
    compiled: &Compiled,
    interface: &str,
) -> wasmtime::Result<()> {
    let imports = compiled.component.component_type();
    let import = imports.get_import(&engine.engine, interface).map(|import| import.ty);
    let Some(ComponentItem::ComponentInstance(instance)) = import else {
        return Ok(());
    };
    let mut defined = linker.instance(interface)?;
    for (name, export) in instance.exports(&engine.engine) {
        match export.ty {
            ComponentItem::ComponentFunc(_) => {
                let called = format!("it called {interface}#{name} while it described itself");
                defined.func_new(name, move |_, _, _, _| Err(wasmtime::Error::msg(called.clone())))?;
            }
            ComponentItem::Resource(_) => {
                defined.resource(name, ResourceType::host::<()>(), |_, _| Ok(()))?;
            }
            _ => {}
        }
    }
    Ok(())
}
