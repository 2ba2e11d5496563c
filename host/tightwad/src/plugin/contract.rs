//! From bytes to a component that fits the contract, or to the reason why not.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::{Limits, PluginEngine, PluginError};
use crate::types::hexadecimal;

/// The contract that this host speaks.
const CONTRACT: &str = "tightwad:plugin@0.1.0";
const PACKAGE: &str = "tightwad:plugin/";
const VERSION: &str = "@0.1.";
/// What runtimes of other languages import for themselves.
const WASI: &str = "wasi:";

/// What a component is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It drives requests.
    Mode,
    /// It rules on ballots.
    ConsensusPolicy,
    /// It drives requests by whole answers.
    Gate,
    /// It gives a gate's verdict.
    GatePolicy,
    /// It places layers.
    Placement,
    /// It picks what is fetched.
    Swarm,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Mode, Self::ConsensusPolicy, Self::Gate, Self::GatePolicy, Self::Placement, Self::Swarm];

    /// The interface that it exports.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::ConsensusPolicy => "consensus-policy",
            Self::Gate => "gate",
            Self::GatePolicy => "gate-policy",
            Self::Placement => "pooling",
            Self::Swarm => "swarm",
        }
    }

    /// What an instance may use, where `limits` are the engine's.
    pub(super) fn limits(self, limits: Limits) -> Limits {
        if self.gets_wasi() { limits.of_policies() } else { limits }
    }

    /// True where a runtime's own imports are given, empty as they are.
    fn gets_wasi(self) -> bool {
        matches!(self, Self::ConsensusPolicy | Self::GatePolicy)
    }
}

/// Bytes that were checked and compiled.
pub struct Compiled {
    pub(super) component: Component,
    /// In hexadecimal.
    pub(super) sha256: String,
    pub(super) kind: Kind,
    pub(super) imports: Vec<String>,
}

impl Compiled {
    /// True when it imports the interface `name`.
    pub(super) fn imports(&self, name: &str) -> bool {
        self.imports.iter().any(|import| import.starts_with(&format!("{PACKAGE}{name}@")))
    }
}

/// Compiles a component of the `wanted` kind, or of whichever it is, off the runtime's threads; `name` is what
/// errors call it.
pub(super) async fn compile(
    engine: &Arc<PluginEngine>,
    name: &str,
    wasm: &[u8],
    wanted: Option<Kind>,
) -> Result<Compiled, PluginError> {
    let (engine, called, wasm) = (engine.clone(), name.to_owned(), wasm.to_owned());
    let work = move || compile_here(&engine, &called, &wasm, wanted);
    let not_component = |reason: String| PluginError::NotComponent { plugin: name.to_owned(), reason };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(not_component(error.to_string())))
}

fn compile_here(
    engine: &PluginEngine,
    name: &str,
    wasm: &[u8],
    wanted: Option<Kind>,
) -> Result<Compiled, PluginError> {
    let not_component = |reason: String| PluginError::NotComponent { plugin: name.to_owned(), reason };
    check_header(wasm).map_err(|reason| not_component(reason.to_owned()))?;
    let component =
        Component::new(&engine.engine, wasm).map_err(|error| not_component(format!("{error:#}")))?;
    let (kind, imports) = check_names(engine, &component, wanted).map_err(|reason| unfit(name, reason))?;
    Ok(Compiled { component, sha256: hexadecimal(&Sha256::digest(wasm)), kind, imports })
}

/// True for a component that is in order, and for something else than `wanted`.
pub(super) async fn is_other(engine: &Arc<PluginEngine>, name: &str, wasm: &[u8], wanted: Kind) -> bool {
    compile(engine, name, wasm, None).await.is_ok_and(|compiled| compiled.kind != wanted)
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

/// Compares the names of imports and exports with the contract, to say what a linker would not; its kind
/// and its imports.
fn check_names(
    engine: &PluginEngine,
    component: &Component,
    wanted: Option<Kind>,
) -> Result<(Kind, Vec<String>), String> {
    let types = component.component_type();
    let other = |name: &str| name.starts_with(PACKAGE) && !name.contains(VERSION);
    let imports: Vec<String> = types.imports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = types.exports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
    if let Some(name) = imports.iter().chain(&exports).find(|name| other(name)) {
        return Err(format!("it was built for {name}: rebuild it with this version's `wit` folder"));
    }
    // Before the imports: of a component of another world, this says more.
    let is =
        |kind: &Kind| exports.iter().any(|name| name.starts_with(&format!("{PACKAGE}{}@", kind.interface())));
    let kind = match wanted {
        Some(kind) if is(&kind) => kind,
        Some(kind) => return Err(format!("it does not export the interface `{}`", kind.interface())),
        None => Kind::ALL.into_iter().find(is).ok_or_else(|| {
            let known = Kind::ALL.map(Kind::interface).join(", ");
            format!("it exports none of the interfaces {known}")
        })?,
    };
    let offered = |name: &str| name.starts_with(PACKAGE) || (kind.gets_wasi() && name.starts_with(WASI));
    if let Some(name) = imports.iter().find(|name| !offered(name)) {
        return Err(format!("it imports {name}, which this host does not offer"));
    }
    Ok((kind, imports))
}
