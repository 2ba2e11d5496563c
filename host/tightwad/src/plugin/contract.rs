//! From bytes to a component that fits the contract, or to the reason why not.

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::{PluginEngine, PluginError};
use crate::types::hexadecimal;

/// The contract that this host speaks.
const CONTRACT: &str = "tightwad:plugin@0.1.0";
const PACKAGE: &str = "tightwad:plugin/";
const VERSION: &str = "@0.1.";

/// Bytes that were checked and compiled.
pub(super) struct Compiled {
    pub component: Component,
    /// In hexadecimal.
    pub sha256: String,
}

/// Compiles a component that exports the interface `export`; `name` is what errors call it.
pub(super) fn compile(
    engine: &PluginEngine,
    name: &str,
    wasm: &[u8],
    export: &str,
) -> Result<Compiled, PluginError> {
    let not_component = |reason: String| PluginError::NotComponent { plugin: name.to_owned(), reason };
    check_header(wasm).map_err(|reason| not_component(reason.to_owned()))?;
    let component =
        Component::new(&engine.engine, wasm).map_err(|error| not_component(format!("{error:#}")))?;
    check_names(engine, &component, export).map_err(|reason| unfit(name, reason))?;
    Ok(Compiled { component, sha256: hexadecimal(&Sha256::digest(wasm)) })
}

/// The error of a component that speaks another contract.
pub(super) fn unfit(name: &str, reason: String) -> PluginError {
    PluginError::Contract { plugin: name.to_owned(), contract: CONTRACT, reason }
}

/// Says what else the bytes are, where they are no component.
fn check_header(wasm: &[u8]) -> Result<(), &'static str> {
    match wasm {
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            Err("it is a core module: build it for wasm32-unknown-unknown with wasm-component-ld as linker")
        }
        _ => Err("it is not WebAssembly at all"),
    }
}

/// Compares the names of imports and exports with the contract, to say what a linker would not.
fn check_names(engine: &PluginEngine, component: &Component, export: &str) -> Result<(), String> {
    let kind = component.component_type();
    let other = |name: &str| name.starts_with(PACKAGE) && !name.contains(VERSION);
    let imports = kind.imports(&engine.engine).map(|(name, _)| name.to_owned());
    let exports = kind.exports(&engine.engine).map(|(name, _)| name.to_owned());
    let (imports, exports): (Vec<String>, Vec<String>) = (imports.collect(), exports.collect());
    if let Some(name) = imports.iter().chain(&exports).find(|name| other(name)) {
        return Err(format!("it was built for {name}: rebuild it with this version's `wit` folder"));
    }
    // Before the imports: of a component of another world, this says more.
    if !exports.iter().any(|name| name.starts_with(&format!("{PACKAGE}{export}@"))) {
        return Err(format!("it does not export the interface `{export}`"));
    }
    if let Some(name) = imports.iter().find(|name| !name.starts_with(PACKAGE)) {
        return Err(format!("it imports {name}, which this host does not offer"));
    }
    Ok(())
}
