//! From bytes to a component that fits the contract, or to the reason why not.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tightwad_core::hexadecimal;
use wasmtime::component::Component;

use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::world::World;

/// The contract that this host speaks.
const CONTRACT: &str = "tightwad:plugin@0.1.0";
const PACKAGE: &str = "tightwad:plugin/";
const VERSION: &str = "@0.1.";
/// What runtimes of other languages import for themselves.
const WASI: &str = "wasi:";

/// Bytes that were checked and compiled.
pub struct Compiled {
    pub(crate) component: Component,
    /// In hexadecimal.
    pub(crate) sha256: String,
    pub(crate) world: World,
    /// The full name of the interface that it exports.
    pub(crate) export: String,
    pub(crate) imports: Vec<String>,
}

impl Compiled {
    /// True when it imports the interface `name`.
    #[must_use]
    pub fn imports(&self, name: &str) -> bool {
        self.imports.iter().any(|import| import.starts_with(&format!("{PACKAGE}{name}@")))
    }
}

/// Compiles a component of one of the `worlds`, off the runtime's threads; `name` is what errors call it.
pub(crate) async fn compile(
    engine: &Arc<PluginEngine>,
    name: &str,
    wasm: &[u8],
    worlds: &[World],
) -> Result<Compiled, PluginError> {
    let (engine, called, wasm, worlds) = (engine.clone(), name.to_owned(), wasm.to_owned(), worlds.to_vec());
    let work = move || compile_here(&engine, &called, &wasm, &worlds);
    let not_component = |reason: String| PluginError::NotComponent { plugin: name.to_owned(), reason };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(not_component(error.to_string())))
}

fn compile_here(
    engine: &PluginEngine,
    name: &str,
    wasm: &[u8],
    worlds: &[World],
) -> Result<Compiled, PluginError> {
    let not_component = |reason: String| PluginError::NotComponent { plugin: name.to_owned(), reason };
    check_header(wasm).map_err(|reason| not_component(reason.to_owned()))?;
    let component =
        Component::new(&engine.engine, wasm).map_err(|error| not_component(format!("{error:#}")))?;
    let names = check_names(engine, &component, worlds);
    let Names { world, export, imports } = names.map_err(|error| unfit(name, error.to_string()))?;
    Ok(Compiled { component, sha256: hexadecimal(&Sha256::digest(wasm)), world, export, imports })
}

/// The error of a component that speaks another contract.
pub(crate) fn unfit(name: &str, reason: String) -> PluginError {
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

/// What the names of imports and exports say.
struct Names {
    world: World,
    export: String,
    imports: Vec<String>,
}

/// The names of imports and exports do not fit the contract.
#[derive(Debug, thiserror::Error)]
enum WrongNames {
    /// A name is one of another version of the contract.
    #[error("it was built for {0}: rebuild it with this version's `wit` folder")]
    OtherVersion(String),
    /// The interface of the one world is not exported.
    #[error("it does not export the interface `{0}`")]
    NotExported(&'static str),
    /// None of the worlds' interfaces is exported.
    #[error("it exports none of the interfaces {}", .0.join(", "))]
    NoneExported(Vec<&'static str>),
    /// An import is not part of the world.
    #[error("it imports {0}, which this host does not offer")]
    NotOffered(String),
}

/// Compares the names of imports and exports with the contract, to say what a linker would not; which of the
/// `worlds` it is, and its imports.
fn check_names(engine: &PluginEngine, component: &Component, worlds: &[World]) -> Result<Names, WrongNames> {
    let types = component.component_type();
    let other = |name: &str| name.starts_with(PACKAGE) && !name.contains(VERSION);
    let imports: Vec<String> = types.imports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = types.exports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
    if let Some(name) = imports.iter().chain(&exports).find(|name| other(name)) {
        return Err(WrongNames::OtherVersion(name.clone()));
    }
    // Before the imports: of a component of another world, this says more.
    let exported = |world: &World| {
        let prefix = format!("{PACKAGE}{}@", world.interface);
        exports.iter().find(|name| name.starts_with(&prefix)).map(|name| (*world, name.clone()))
    };
    let (world, export) = worlds.iter().find_map(exported).ok_or_else(|| match worlds {
        [world] => WrongNames::NotExported(world.interface),
        _ => WrongNames::NoneExported(worlds.iter().map(|world| world.interface).collect()),
    })?;
    let offered = |name: &str| name.starts_with(PACKAGE) || (world.wasi && name.starts_with(WASI));
    if let Some(name) = imports.iter().find(|name| !offered(name)) {
        return Err(WrongNames::NotOffered(name.clone()));
    }
    Ok(Names { world, export, imports })
}
