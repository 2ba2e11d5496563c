//! Compiles a component and compares it with the contract.
//!
//! `wit/README.md` has the version policy. While the major version is 0, a host loads plugins of its own minor version,
//! with any patch version.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tightwad_core::to_hex;
use wasmtime::component::Component;

use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::world::World;

/// The contract of this host.
const CONTRACT: &str = "tightwad:plugin@0.1.0";
/// The package: the first part of an interface's full name.
const PACKAGE_PREFIX: &str = "tightwad:plugin/";
/// The versions that this host loads: the last part of an interface's full name begins with this prefix.
const VERSION_PREFIX: &str = "@0.1.";
/// The interface that every world exports.
const PLUGIN_INTERFACE: &str = "plugin";
/// The package that language runtimes import for themselves.
const WASI_PREFIX: &str = "wasi:";

/// A compiled component that fits the contract.
pub struct CompiledComponent {
    pub(crate) component: Component,
    /// The SHA-256 of the component's bytes, in hexadecimal.
    pub(crate) sha256: String,
    pub(crate) world: World,
    /// The full name of the exported interface `plugin`.
    pub(crate) plugin_interface: String,
    pub(crate) imports: Vec<String>,
}

impl CompiledComponent {
    /// True if the component imports the interface `name`.
    #[must_use]
    pub fn imports(&self, name: &str) -> bool {
        self.imports.iter().any(|import| is_interface(import, name))
    }
}

/// Compiles a component of one of the `worlds`, outside the runtime's threads. An error contains `name`.
pub(crate) async fn compile(
    engine: &Arc<PluginEngine>,
    name: &str,
    wasm: &[u8],
    worlds: &[World],
) -> Result<CompiledComponent, PluginError> {
    let (engine, plugin, wasm, worlds) = (engine.clone(), name.to_owned(), wasm.to_owned(), worlds.to_vec());
    let work = move || compile_blocking(&engine, &plugin, &wasm, &worlds);
    let not_component = |reason: String| PluginError::NotComponent { plugin: name.to_owned(), reason };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(not_component(error.to_string())))
}

fn compile_blocking(
    engine: &PluginEngine,
    name: &str,
    wasm: &[u8],
    worlds: &[World],
) -> Result<CompiledComponent, PluginError> {
    let not_component = |reason: String| PluginError::NotComponent { plugin: name.to_owned(), reason };
    check_header(wasm).map_err(|reason| not_component(reason.to_owned()))?;
    let component =
        Component::new(&engine.engine, wasm).map_err(|error| not_component(format!("{error:#}")))?;
    let types = component.component_type();
    let imports = types.imports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = types.exports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
    let names = check_names(imports, &exports, worlds).map_err(|error| match error {
        NameError::OtherVersion(built_for) => {
            PluginError::OtherContract { plugin: name.to_owned(), built_for, contract: CONTRACT }
        }
        error => mismatch(name, error.to_string()),
    })?;
    let CheckedNames { world, plugin_interface, imports } = names;
    Ok(CompiledComponent {
        component,
        sha256: to_hex(&Sha256::digest(wasm)),
        world,
        plugin_interface,
        imports,
    })
}

/// The error of a component of a supported contract version that does not fit the contract.
pub(crate) fn mismatch(name: &str, reason: String) -> PluginError {
    PluginError::ContractMismatch { plugin: name.to_owned(), contract: CONTRACT, reason }
}

/// Returns an error that describes the bytes if they are not a component.
fn check_header(wasm: &[u8]) -> Result<(), &'static str> {
    match wasm {
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err(
            "it is a core module. Build it for wasm32-unknown-unknown with wasm-component-ld as the linker.",
        ),
        _ => Err("it is not WebAssembly"),
    }
}

/// True if `full` is the name of the contract's interface `name`, of any version.
fn is_interface(full: &str, name: &str) -> bool {
    full.strip_prefix(PACKAGE_PREFIX)
        .and_then(|rest| rest.strip_prefix(name))
        .is_some_and(|rest| rest.starts_with('@'))
}

/// The unsupported contract of an interface, such as `tightwad:plugin@0.2.0` for `tightwad:plugin/mode@0.2.0`. `None`
/// if the interface belongs to another package, or to a version that this host loads.
fn unsupported_contract(full: &str) -> Option<String> {
    let version = full.strip_prefix(PACKAGE_PREFIX)?.split_once('@').map(|(_, version)| version);
    let package = PACKAGE_PREFIX.trim_end_matches('/');
    match version {
        Some(_) if full.contains(VERSION_PREFIX) => None,
        Some(version) => Some(format!("{package}@{version}")),
        None => Some(format!("{package} without a version")),
    }
}

/// The names of a component that fits the contract.
#[derive(Debug)]
struct CheckedNames {
    world: World,
    plugin_interface: String,
    imports: Vec<String>,
}

/// The reason why the names of imports and exports do not fit the contract.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NameError {
    /// An interface belongs to another version of the contract.
    #[error("it was built for {0}")]
    OtherVersion(String),
    /// The component does not export this interface.
    #[error("it does not export the interface `{0}`")]
    NotExported(&'static str),
    /// The component exports none of these interfaces.
    #[error("it exports none of the interfaces {}", .0.join(", "))]
    NoneExported(Vec<&'static str>),
    /// The component imports an interface that is not part of the world.
    #[error("it imports {0}, which this host does not offer")]
    NotOffered(String),
}

/// Compares names with the contract. A linker's errors would be less precise.
fn check_names(
    imports: Vec<String>,
    exports: &[String],
    worlds: &[World],
) -> Result<CheckedNames, NameError> {
    if let Some(other) = imports.iter().chain(exports).find_map(|name| unsupported_contract(name)) {
        return Err(NameError::OtherVersion(other));
    }
    let exported = |interface: &str| exports.iter().find(|name| is_interface(name, interface));
    // Exports come before imports: for a component of another world, the missing export is the clearer error.
    let world = worlds.iter().find(|world| exported(world.interface).is_some());
    let world = *world.ok_or_else(|| match worlds {
        [world] => NameError::NotExported(world.interface),
        _ => NameError::NoneExported(worlds.iter().map(|world| world.interface).collect()),
    })?;
    let plugin_interface =
        exported(PLUGIN_INTERFACE).ok_or(NameError::NotExported(PLUGIN_INTERFACE))?.clone();
    let offered =
        |name: &str| name.starts_with(PACKAGE_PREFIX) || (world.wasi && name.starts_with(WASI_PREFIX));
    if let Some(name) = imports.iter().find(|name| !offered(name)) {
        return Err(NameError::NotOffered(name.clone()));
    }
    Ok(CheckedNames { world, plugin_interface, imports })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: World = World { interface: "mode", wasi: false };
    const POLICY: World = World { interface: "gate-policy", wasi: true };

    fn check(imports: &[&str], exports: &[&str], worlds: &[World]) -> Result<World, NameError> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        check_names(owned(imports), &owned(exports), worlds).map(|names| names.world)
    }

    #[test]
    fn contract_constant_equals_the_version_of_the_wit_folder() {
        let world = include_str!("../../../wit/world.wit");
        assert!(world.contains(&format!("package {CONTRACT};")), "{CONTRACT}");
        let (_, version) = CONTRACT.split_once('@').unwrap();
        assert!(format!("@{version}").starts_with(VERSION_PREFIX), "{VERSION_PREFIX}");
    }

    #[test]
    fn plugin_of_another_patch_version_fits() {
        let exports = ["tightwad:plugin/plugin@0.1.7", "tightwad:plugin/mode@0.1.7"];
        assert_eq!(check(&["tightwad:plugin/log@0.1.7"], &exports, &[MODE]), Ok(MODE));
    }

    #[test]
    fn plugin_of_another_minor_version_reports_its_contract() {
        for (import, export) in [("@0.1.0", "@0.2.0"), ("@0.2.0", "@0.2.0"), ("@0.2.0", "@0.1.0")] {
            let (import, export) =
                (format!("{PACKAGE_PREFIX}log{import}"), format!("{PACKAGE_PREFIX}mode{export}"));
            let result = check(&[&import], &[&export], &[MODE]);
            assert_eq!(result, Err(NameError::OtherVersion("tightwad:plugin@0.2.0".to_owned())));
        }
        let unversioned = check(&[], &["tightwad:plugin/mode"], &[MODE]);
        assert_eq!(unversioned, Err(NameError::OtherVersion("tightwad:plugin without a version".to_owned())));
    }

    #[test]
    fn missing_interface_is_named() {
        let plugin = "tightwad:plugin/plugin@0.1.0";
        let mode = "tightwad:plugin/mode@0.1.0";
        assert_eq!(check(&[], &[plugin], &[MODE]), Err(NameError::NotExported("mode")));
        assert_eq!(check(&[], &[mode], &[MODE]), Err(NameError::NotExported("plugin")));
        let interfaces = vec!["mode", "gate-policy"];
        assert_eq!(check(&[], &[plugin], &[MODE, POLICY]), Err(NameError::NoneExported(interfaces)));
    }

    #[test]
    fn wasi_import_is_refused_outside_policy_worlds() {
        let exports =
            |name: &str| ["tightwad:plugin/plugin@0.1.0".to_owned(), format!("{PACKAGE_PREFIX}{name}@0.1.0")];
        let imports = || vec!["wasi:cli/stderr@0.2.6".to_owned()];
        assert!(check_names(imports(), &exports("gate-policy"), &[POLICY]).is_ok());
        let refused = check_names(imports(), &exports("mode"), &[MODE]).map(|names| names.world);
        assert_eq!(refused, Err(NameError::NotOffered("wasi:cli/stderr@0.2.6".to_owned())));
    }
}
