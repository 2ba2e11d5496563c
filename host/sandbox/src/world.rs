//! What a component can be for.

/// A kind of component, by the interface that it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    /// The exported interface, without package and version.
    pub interface: &'static str,
    /// The call that asks a component who it is, as errors name it.
    pub describe: &'static str,
    /// True where a language runtime's own imports (WASI) are offered. They reach no file, socket or variable.
    pub wasi: bool,
}
