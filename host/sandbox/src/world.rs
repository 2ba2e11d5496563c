//! The worlds of components.

/// A world, identified by the interface that its components export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    /// The exported interface, without package and version.
    pub interface: &'static str,
    /// True if components may import WASI for their language runtimes. This WASI context reaches no file, socket or
    /// environment variable.
    pub wasi: bool,
}
