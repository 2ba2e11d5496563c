//! Asks a component for its name and version.
//!
//! Every world exports the interface `plugin`. The call therefore needs an instance, but not a mode. Imports that need
//! a mode trap.

use std::sync::Arc;

use tightwad_core::printable;
use wasmtime::Store;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{ComponentType, HasSelf, Lift, Linker, ResourceType};

use crate::bindings::tightwad::plugin::clock;
use crate::contract::CompiledComponent;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::limits::{Limits, ResourceMeter, with_timeout};
use crate::state::State;
use crate::store;

/// The call's name in errors.
const DESCRIBE_CALL: &str = "plugin.describe";

/// The maximum length of a name and of a version.
const MAX_LABEL_CHARACTERS: usize = 64;

/// The record `info` of the interface `plugin`.
#[derive(ComponentType, Lift)]
#[component(record)]
struct Info {
    name: String,
    version: String,
}

/// Returns the component's label, `NAME@VERSION`. An error cannot use the label, so it contains `name`.
pub(crate) async fn label(
    engine: &Arc<PluginEngine>,
    name: &str,
    compiled: &CompiledComponent,
    limits: Limits,
) -> Result<String, PluginError> {
    let mut store = store::new_store(engine, name, ResourceMeter::new(limits, 0), ());
    match with_timeout(describe(engine, compiled, &mut store)).await {
        Ok(info) => checked_label(&info).map_err(|message| PluginError::Failed {
            plugin: name.to_owned(),
            call: DESCRIBE_CALL,
            message,
        }),
        Err(error) => Err(store::call_error(DESCRIBE_CALL, &error, store.data())),
    }
}

/// The label of valid info. The label is part of every response, log line and metric of the plugin.
fn checked_label(info: &Info) -> Result<String, String> {
    for (field, text) in [("name", &info.name), ("version", &info.version)] {
        let is_valid =
            (1..=MAX_LABEL_CHARACTERS).contains(&text.chars().take(MAX_LABEL_CHARACTERS + 1).count());
        let shown = printable(text, MAX_LABEL_CHARACTERS);
        let is_printable = printable(text, usize::MAX) == *text;
        if !is_valid || !is_printable || text.chars().any(char::is_whitespace) {
            return Err(format!(
                "its {field} is '{shown}'. Use 1 to {MAX_LABEL_CHARACTERS} printable characters without spaces."
            ));
        }
    }
    Ok(format!("{}@{}", info.name, info.version))
}

async fn describe(
    engine: &PluginEngine,
    compiled: &CompiledComponent,
    store: &mut Store<State<()>>,
) -> wasmtime::Result<Info> {
    let mut linker = engine.linker(compiled.world)?;
    clock::add_to_linker::<State<()>, HasSelf<State<()>>>(&mut linker, |state| state)?;
    for name in &compiled.imports {
        if !works_without_mode(name) {
            define_traps(&mut linker, engine, compiled, name)?;
        }
    }
    let instance = linker.instantiate_async(&mut *store, &compiled.component).await?;
    let missing = |name: &str| wasmtime::Error::msg(format!("it does not export {name}"));
    let interface = instance.get_export_index(&mut *store, None, &compiled.plugin_interface);
    let interface = interface.ok_or_else(|| missing(&compiled.plugin_interface))?;
    let function = instance.get_export_index(&mut *store, Some(&interface), "describe");
    let function = function.ok_or_else(|| missing("describe"))?;
    let (info,) =
        instance.get_typed_func::<(), (Info,)>(&mut *store, &function)?.call_async(&mut *store, ()).await?;
    Ok(info)
}

/// True for the interfaces that work without a mode.
fn works_without_mode(import: &str) -> bool {
    ["tightwad:plugin/log@", "tightwad:plugin/clock@", "wasi:"]
        .iter()
        .any(|prefix| import.starts_with(prefix))
}

/// Defines each function of `interface` as a trap.
fn define_traps(
    linker: &mut Linker<State<()>>,
    engine: &PluginEngine,
    compiled: &CompiledComponent,
    interface: &str,
) -> wasmtime::Result<()> {
    let imports = compiled.component.component_type();
    let import = imports.get_import(&engine.engine, interface).map(|import| import.ty);
    let Some(ComponentItem::ComponentInstance(instance)) = import else {
        return Ok(());
    };
    let mut definitions = linker.instance(interface)?;
    for (name, export) in instance.exports(&engine.engine) {
        match export.ty {
            ComponentItem::ComponentFunc(_) => {
                let message =
                    format!("it called {interface}#{name}, which is not available during `describe`");
                definitions.func_new(name, move |_, _, _, _| Err(wasmtime::Error::msg(message.clone())))?;
            }
            ComponentItem::Resource(_) => {
                definitions.resource(name, ResourceType::host::<()>(), |_, _| Ok(()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_has_printable_characters_and_a_maximum_length() {
        let label = |name: &str, version: &str| {
            checked_label(&Info { name: name.to_owned(), version: version.to_owned() })
        };
        assert_eq!(label("größe", "0.1.0+x").as_deref(), Ok("größe@0.1.0+x"));
        let long = "x".repeat(50 << 20);
        for name in ["", "a b", "a\nb", "\u{1b}[31mred", "\u{202e}evil", &long] {
            let error = label(name, "0.1.0").unwrap_err();
            assert!(error.starts_with("its name is '") && error.len() < 200, "{error}");
        }
        assert!(label("a", "").unwrap_err().starts_with("its version is ''"));
    }
}
